#include "options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"

struct options options = {
    .direct = true,
    .family = 4,
    .port = 9100,
    .targets = 32,
    .echo_ports = 1,
    .sources = 16,
    .count = 1,
    .seconds = 1,
    .warmup = 0.3,
    .size = 64,
    .window = 64,
    .direction = UP,
    .label = "",
};

enum {
    PROXY_OPTION = 256, LOGIN, NAME, FAMILY, PORT, TARGETS, ECHO_PORTS, TALLY, SOURCES, COUNT, SECONDS, WARMUP, RATE,
    SIZE, WINDOW, DIRECTION, COPY, SENDFILE, OPTIMISTIC, HALF_CLOSE, RESET, SPIN, TREE, LABEL,
};

static const struct option known[] = {
    {"proxy", required_argument, NULL, PROXY_OPTION},
    {"login", required_argument, NULL, LOGIN},
    {"name", required_argument, NULL, NAME},
    {"family", required_argument, NULL, FAMILY},
    {"port", required_argument, NULL, PORT},
    {"targets", required_argument, NULL, TARGETS},
    {"echo-ports", required_argument, NULL, ECHO_PORTS},
    {"tally", required_argument, NULL, TALLY},
    {"sources", required_argument, NULL, SOURCES},
    {"count", required_argument, NULL, COUNT},
    {"seconds", required_argument, NULL, SECONDS},
    {"warmup", required_argument, NULL, WARMUP},
    {"rate", required_argument, NULL, RATE},
    {"size", required_argument, NULL, SIZE},
    {"window", required_argument, NULL, WINDOW},
    {"direction", required_argument, NULL, DIRECTION},
    {"copy", no_argument, NULL, COPY},
    {"sendfile", no_argument, NULL, SENDFILE},
    {"optimistic", no_argument, NULL, OPTIMISTIC},
    {"half-close", no_argument, NULL, HALF_CLOSE},
    {"reset", no_argument, NULL, RESET},
    {"spin", no_argument, NULL, SPIN},
    {"tree", required_argument, NULL, TREE},
    {"label", required_argument, NULL, LABEL},
    {NULL, 0, NULL, 0},
};

static double number(const char *option, const char *text, double least, double most)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || *end || errno || !(value >= least && value <= most))
        fail(OURS, "--%s %s: a number from %g to %g is wanted", option, text, least, most);
    return value;
}

static int whole(const char *option, const char *text, int least, int most)
{
    double value = number(option, text, least, most);
    if (value != (int)value)
        fail(OURS, "--%s %s: a whole number is wanted", option, text);
    return (int)value;
}

/* "127.0.0.1:1080" or "[::1]:1080". */
static void read_proxy(const char *text)
{
    if (strcmp(text, "direct") == 0) {
        options.direct = true;
        return;
    }
    options.direct = false;
    char host[64];
    const char *colon = strrchr(text, ':');
    size_t length = colon ? (size_t)(colon - text) : 0;
    if (!colon || length >= sizeof host)
        fail(OURS, "--proxy %s: 127.0.0.1:PORT, [::1]:PORT or direct is wanted", text);
    memcpy(host, text, length);
    host[length] = 0;
    in_port_t port = htons((uint16_t)whole("proxy", colon + 1, 1, 65535));
    struct sockaddr_in *four = (void *)&options.proxy;
    struct sockaddr_in6 *six = (void *)&options.proxy;
    if (inet_pton(AF_INET, host, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = port;
        return;
    }
    if (host[0] == '[' && host[length - 1] == ']') {
        host[length - 1] = 0;
        if (inet_pton(AF_INET6, host + 1, &six->sin6_addr) == 1) {
            six->sin6_family = AF_INET6;
            six->sin6_port = port;
            return;
        }
    }
    fail(OURS, "--proxy %s: 127.0.0.1:PORT, [::1]:PORT or direct is wanted", text);
}

static void read_login(char *text)
{
    char *colon = strchr(text, ':');
    if (!colon || colon == text || colon - text > 255 || !colon[1] || strlen(colon + 1) > 255)
        fail(OURS, "--login: USER:PASSWORD is wanted, each of 1 to 255 bytes");
    *colon = 0;
    options.user = text;
    options.password = colon + 1;
}

static void read_name(const char *text)
{
    if (!*text || strlen(text) > 255)
        fail(OURS, "--name: 1 to 255 bytes are wanted");
    options.name = text;
}

static enum direction direction_of(const char *text)
{
    if (strcmp(text, "up") == 0)
        return UP;
    if (strcmp(text, "down") == 0)
        return DOWN;
    if (strcmp(text, "both") == 0)
        return BOTH;
    fail(OURS, "--direction %s: up, down or both is wanted", text);
}

static void add_tree(const char *text)
{
    if (options.tree_count == MOST_TREES)
        fail(OURS, "--tree: at most %d may be named", MOST_TREES);
    options.trees[options.tree_count++] = whole("tree", text, 1, 1 << 30);
}

static void apply_flag(int option)
{
    switch (option) {
    case COPY: options.copy = true; break;
    case SENDFILE: options.sendfile = true; break;
    case OPTIMISTIC: options.optimistic = true; break;
    case HALF_CLOSE: options.half_close = true; break;
    case RESET: options.reset = true; break;
    case SPIN: options.spin = true; break;
    }
}

static void apply(int option, char *text)
{
    switch (option) {
    case PROXY_OPTION: read_proxy(text); break;
    case LOGIN: read_login(text); break;
    case NAME: read_name(text); break;
    case FAMILY: options.family = whole("family", text, 4, 6); break;
    case PORT: options.port = whole("port", text, 1, 65535 - MORE_ECHOES); break;
    case TARGETS: options.targets = whole("targets", text, 1, 254); break;
    case ECHO_PORTS: options.echo_ports = whole("echo-ports", text, 1, 1024); break;
    case TALLY: options.tally = whole("tally", text, 1, 65535); break;
    case SOURCES: options.sources = whole("sources", text, 0, 0xfdffff); break;
    case COUNT: options.count = whole("count", text, 0, 1000000); break;
    case SECONDS: options.seconds = number("seconds", text, 0.01, 86400); break;
    case WARMUP: options.warmup = number("warmup", text, 0, 3600); break;
    case RATE: options.rate = number("rate", text, 0, 1e7); break;
    case SIZE: options.size = whole("size", text, 1, 65000); break;
    case WINDOW: options.window = whole("window", text, 1, 65536); break;
    case DIRECTION: options.direction = direction_of(text); break;
    case TREE: add_tree(text); break;
    case LABEL: options.label = text; break;
    default: apply_flag(option);
    }
}

void options_read(int argc, char **argv)
{
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (option == '?')
            exit(OURS); /* getopt has said why */
        apply(option, optarg);
    }
    if (optind < argc)
        fail(OURS, "%s: no such option", argv[optind]);
    if (options.family == 5)
        fail(OURS, "--family 5: 4 or 6 is wanted");
    if (options.port + MORE_ECHOES + options.echo_ports - 2 > 65535)
        fail(OURS, "--port %d and --echo-ports %d: the last port is beyond 65535", options.port, options.echo_ports);
}
