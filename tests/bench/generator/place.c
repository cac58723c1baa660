#include "place.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "options.h"

enum { FIRST_TARGET = 0x7f000001 /* 127.0.0.1 */, FIRST_SOURCE = 0x7f010001 /* 127.1.0.1 */ };

static struct sockaddr_storage four(uint32_t address, int port)
{
    struct sockaddr_storage made = {0};
    struct sockaddr_in *in = (void *)&made;
    in->sin_family = AF_INET;
    in->sin_addr.s_addr = htonl(address);
    in->sin_port = htons((uint16_t)port);
    return made;
}

static struct sockaddr_storage six(int port)
{
    struct sockaddr_storage made = {0};
    struct sockaddr_in6 *in = (void *)&made;
    in->sin6_family = AF_INET6;
    in->sin6_addr = in6addr_loopback;
    in->sin6_port = htons((uint16_t)port);
    return made;
}

struct sockaddr_storage place_of_target(int family, int number, int port)
{
    port += options.port;
    return family == 6 ? six(port) : four(FIRST_TARGET + (uint32_t)number, port);
}

unsigned place_next_turn(void)
{
    static unsigned turn;
    return turn++;
}

/* Addresses turn fastest; a port is changed when all of them had it. */
struct sockaddr_storage place_of_turn(unsigned turn, int port)
{
    int addresses = options.family == 6 || options.name ? 1 : options.targets;
    int number = (int)(turn % (unsigned)addresses);
    int step = (int)(turn / (unsigned)addresses % (unsigned)options.echo_ports);
    if (port == ECHO_PORT && step > 0)
        port = MORE_ECHOES + step - 1;
    return place_of_target(options.family, number, port);
}

int place_bind_source(int fd, unsigned turn)
{
    bool over_six = !options.direct ? options.proxy.ss_family == AF_INET6 : options.family == 6;
    if (!options.sources || over_six)
        return 0;
    const int yes = 1;
    if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes))
        return -1;
    struct sockaddr_storage address = four(FIRST_SOURCE + turn % (unsigned)options.sources, 0);
    return bind(fd, (const struct sockaddr *)&address, place_length(&address));
}

socklen_t place_length(const struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}
