/* A Modbus server on libmodbus: the anchor's far end, for many TCP connections (epoll) or one serial line.
 *
 *   modbus_server tcp         listens on a free port of 127.0.0.1 and prints it
 *   modbus_server rtu TTY     answers as unit 1 on a serial line
 *
 * Holding register i reads as (i * 7 + 1) modulo 65536. Ends when its standard input ends. */
#include <errno.h>
#include <fcntl.h>
#include <modbus/modbus.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { REGISTERS = 1000, MAX_EVENTS = 64 };

static void fail(const char *what)
{
    fprintf(stderr, "modbus_server: %s: %s\n", what, modbus_strerror(errno));
    exit(1);
}

static modbus_mapping_t *make_registers(void)
{
    modbus_mapping_t *map = modbus_mapping_new(0, 0, REGISTERS, 0);
    if (map == NULL)
        fail("registers");
    for (int i = 0; i < REGISTERS; i++)
        map->tab_registers[i] = (uint16_t) (i * 7 + 1);
    return map;
}

static void watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        fail("epoll");
}

static int print_port(int listener)
{
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    if (getsockname(listener, (struct sockaddr *) &address, &size) != 0)
        fail("port");
    printf("%d\n", ntohs(address.sin_port));
    return fflush(stdout);
}

static void serve_tcp(modbus_mapping_t *map)
{
    modbus_t *ctx = modbus_new_tcp("127.0.0.1", 0);
    int listener = modbus_tcp_listen(ctx, 128);
    int epoll = epoll_create1(0);
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    struct epoll_event events[MAX_EVENTS];

    if (listener < 0 || epoll < 0)
        fail("listen");
    print_port(listener);
    watch(epoll, listener);
    watch(epoll, STDIN_FILENO);
    for (;;) {
        int ready = epoll_wait(epoll, events, MAX_EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == STDIN_FILENO)
                return;
            if (fd == listener) {
                watch(epoll, modbus_tcp_accept(ctx, &listener));
                continue;
            }
            modbus_set_socket(ctx, fd);
            int length = modbus_receive(ctx, query);
            if (length > 0)
                modbus_reply(ctx, query, length, map);
            else if (length < 0)
                close(fd); /* epoll forgets it by itself */
        }
    }
}

static void serve_rtu(modbus_mapping_t *map, const char *tty)
{
    modbus_t *ctx = modbus_new_rtu(tty, 9600, 'N', 8, 1);
    uint8_t query[MODBUS_RTU_MAX_ADU_LENGTH];

    if (ctx == NULL || modbus_set_slave(ctx, 1) != 0 || modbus_connect(ctx) != 0)
        fail(tty);
    modbus_set_byte_timeout(ctx, 0, 100000);
    printf("open\n");
    fflush(stdout);
    for (;;) {
        struct pollfd inputs[2] = {{STDIN_FILENO, POLLIN, 0}, {modbus_get_socket(ctx), POLLIN, 0}};
        poll(inputs, 2, -1);
        if (inputs[0].revents != 0)
            return;
        int length = modbus_receive(ctx, query);
        if (length > 0)
            modbus_reply(ctx, query, length, map);
    }
}

int main(int argc, char **argv)
{
    modbus_mapping_t *map = make_registers();
    if (argc == 2 && strcmp(argv[1], "tcp") == 0)
        serve_tcp(map);
    else if (argc == 3 && strcmp(argv[1], "rtu") == 0)
        serve_rtu(map, argv[2]);
    else {
        fprintf(stderr, "modbus_server tcp | rtu TTY\n");
        return 2;
    }
    return 0;
}
