/* The client's half of SOCKS5 as bytes (RFC 1928, RFC 1929). Knows no socket. */
#ifndef BENCH_SOCKS_H
#define BENCH_SOCKS_H

#include <stdint.h>
#include <sys/socket.h>

enum command { CONNECT = 1, ASSOCIATE = 3 };

enum { LONGEST_GREETING = 3, LONGEST_LOGIN = 3 + 255 + 255 };
enum { LONGEST_REQUEST = 4 + 1 + 255 + 2, LONGEST_REPLY = LONGEST_REQUEST };
enum { METHOD_REPLY = 2, LOGIN_REPLY = 2, SHORTEST_REPLY = 4 + 1 }; /* bytes that say how many more belong to a reply */

/* Each writes one message to `out` and returns its length. */
int socks_greeting(uint8_t *out, const char *user);
int socks_login(uint8_t *out, const char *user, const char *password);
int socks_request(uint8_t *out, enum command command, const char *name, const struct sockaddr_storage *target);

/* Port of an address, in host order. */
uint16_t socks_port(const struct sockaddr_storage *address);

/* Address and port as they stand in requests, replies and datagrams: ATYP, address, port. Returns the length. */
int socks_put_address(uint8_t *out, const struct sockaddr_storage *address);

/* Length of the whole reply whose first SHORTEST_REPLY bytes are here; 0 where its ATYP is unknown. */
int socks_reply_length(const uint8_t *reply);

/* Address in a whole reply. False for a name. */
int socks_reply_address(const uint8_t *reply, struct sockaddr_storage *address);

/* The words of RFC 1928, section 6 for a reply code. */
const char *socks_reply_text(uint8_t code);

#endif
