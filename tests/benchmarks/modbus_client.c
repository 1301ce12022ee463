/* The anchor: a Modbus TCP client on libmodbus, one thread a connection, as fast as it goes.
 *
 *   modbus_client PORT CONNECTIONS SECONDS REGISTERS
 *
 * Prints the number of reads that were answered rightly, and the seconds they took. Any other answer ends it. */
#include <errno.h>
#include <modbus/modbus.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int port, registers;
static atomic_int stop;
static pthread_barrier_t all_open;

static void *read_on(void *reads)
{
    uint16_t words[MODBUS_MAX_READ_REGISTERS];
    modbus_t *ctx = modbus_new_tcp("127.0.0.1", port);

    modbus_set_slave(ctx, 1);
    if (modbus_connect(ctx) != 0) {
        fprintf(stderr, "modbus_client: %s\n", modbus_strerror(errno));
        exit(1);
    }
    pthread_barrier_wait(&all_open);
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        if (modbus_read_registers(ctx, 0, registers, words) != registers ||
            words[registers - 1] != (uint16_t) ((registers - 1) * 7 + 1)) {
            fprintf(stderr, "modbus_client: %s\n", modbus_strerror(errno));
            exit(1);
        }
        ++*(long *) reads;
    }
    modbus_close(ctx);
    modbus_free(ctx);
    return NULL;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "modbus_client PORT CONNECTIONS SECONDS REGISTERS\n");
        return 2;
    }
    port = atoi(argv[1]);
    int connections = atoi(argv[2]);
    double seconds = atof(argv[3]);
    registers = atoi(argv[4]);
    pthread_t threads[connections];
    long reads[connections], total = 0;

    pthread_barrier_init(&all_open, NULL, connections + 1);
    for (int i = 0; i < connections; i++) {
        reads[i] = 0;
        pthread_create(&threads[i], NULL, read_on, &reads[i]);
    }
    pthread_barrier_wait(&all_open);
    double began = now();
    struct timespec wait = {(time_t) seconds, (long) ((seconds - (time_t) seconds) * 1e9)};
    nanosleep(&wait, NULL);
    atomic_store(&stop, 1);
    for (int i = 0; i < connections; i++) {
        pthread_join(threads[i], NULL);
        total += reads[i];
    }
    printf("%ld %.6f\n", total, now() - began);
    return 0;
}
