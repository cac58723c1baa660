#include "socks.h"

#include <netinet/in.h>
#include <string.h>

enum { VERSION = 5, LOGIN_VERSION = 1, NO_AUTHENTICATION = 0, PASSWORD = 2 };
enum { IPV4 = 1, NAME = 3, IPV6 = 4 };

int socks_greeting(uint8_t *out, const char *user)
{
    out[0] = VERSION;
    out[1] = 1;
    out[2] = user ? PASSWORD : NO_AUTHENTICATION;
    return 3;
}

static uint8_t *put_text(uint8_t *out, const char *text)
{
    size_t length = strlen(text);
    *out++ = (uint8_t)length;
    memcpy(out, text, length);
    return out + length;
}

int socks_login(uint8_t *out, const char *user, const char *password)
{
    uint8_t *end = out;
    *end++ = LOGIN_VERSION;
    end = put_text(end, user);
    end = put_text(end, password);
    return (int)(end - out);
}

uint16_t socks_port(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
    return ntohs(((const struct sockaddr_in *)address)->sin_port);
}

static uint8_t *put_port(uint8_t *out, uint16_t port)
{
    *out++ = (uint8_t)(port >> 8);
    *out++ = (uint8_t)port;
    return out;
}

int socks_put_address(uint8_t *out, const struct sockaddr_storage *address)
{
    uint8_t *end = out;
    if (address->ss_family == AF_INET6) {
        *end++ = IPV6;
        memcpy(end, &((const struct sockaddr_in6 *)address)->sin6_addr, 16);
        end += 16;
    } else {
        *end++ = IPV4;
        memcpy(end, &((const struct sockaddr_in *)address)->sin_addr, 4);
        end += 4;
    }
    return (int)(put_port(end, socks_port(address)) - out);
}

int socks_request(uint8_t *out, enum command command, const char *name, const struct sockaddr_storage *target)
{
    out[0] = VERSION;
    out[1] = (uint8_t)command;
    out[2] = 0;
    if (!name)
        return 3 + socks_put_address(out + 3, target);
    out[3] = NAME;
    return (int)(put_port(put_text(out + 4, name), socks_port(target)) - out);
}

int socks_reply_length(const uint8_t *reply)
{
    switch (reply[3]) {
    case IPV4: return 4 + 4 + 2;
    case IPV6: return 4 + 16 + 2;
    case NAME: return 4 + 1 + reply[4] + 2;
    default: return 0;
    }
}

int socks_reply_address(const uint8_t *reply, struct sockaddr_storage *address)
{
    memset(address, 0, sizeof *address);
    if (reply[3] == IPV4) {
        struct sockaddr_in *four = (void *)address;
        four->sin_family = AF_INET;
        memcpy(&four->sin_addr, reply + 4, 4);
        memcpy(&four->sin_port, reply + 8, 2);
    } else if (reply[3] == IPV6) {
        struct sockaddr_in6 *six = (void *)address;
        six->sin6_family = AF_INET6;
        memcpy(&six->sin6_addr, reply + 4, 16);
        memcpy(&six->sin6_port, reply + 20, 2);
    } else {
        return 0;
    }
    return 1;
}

const char *socks_reply_text(uint8_t code)
{
    static const char *const texts[] = {
        "succeeded", "general SOCKS server failure", "connection not allowed by ruleset", "network unreachable",
        "host unreachable", "connection refused", "TTL expired", "command not supported", "address type not supported",
    };
    return code < sizeof texts / sizeof *texts ? texts[code] : "unassigned";
}
