/* A foreign head-end's reader for Raseed prepaid meters, written on libmodbus from the published register map alone.
 *
 *   meter_reader tcp PORT UNIT VERB ...      through a converter on 127.0.0.1
 *   meter_reader rtu TTY  UNIT VERB ...      on a line of 9600 baud
 *
 *   read                    identity, credit, relay and counters
 *   token DIGITS ID         write 20 digits into the token mailbox, tell what the meter says
 *   relay open|close ID     order through the command mailbox, tell what the meter says
 *   forbidden               try what no master may do, tell the exception of each
 *
 * Prints lines of name=value. Ends with 1 when the meter cannot be asked. */
#include <errno.h>
#include <inttypes.h>
#include <modbus/modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    IDENTITY = 0x1000,
    CREDIT = 0x1010,
    RELAY = 0x1020,
    LAST_TOKEN = 0x1028,
    COMMAND = 0x1030,
    COMMAND_RESULT = 0x1040,
    TOKEN = 0x1050,
    TOKEN_RESULT = 0x1059,
    METERING = 0x1080,
    ARM_KEY = 0x5A17,
    LOOKS = 20
};

static void must(int done, const char *what)
{
    if (done >= 0)
        return;
    fprintf(stderr, "meter_reader: %s: %s\n", what, modbus_strerror(errno));
    exit(1);
}

static uint64_t number(const uint16_t *words, int count)
{
    uint64_t value = 0;
    for (int i = 0; i < count; i++)
        value = value << 16 | words[i];
    return value;
}

static void put(uint16_t *words, uint64_t value)
{
    for (int i = 3; i >= 0; i--, value >>= 16)
        words[i] = (uint16_t) value;
}

static void print_relay(modbus_t *meter)
{
    uint16_t words[2];
    must(modbus_read_registers(meter, RELAY, 2, words), "relay");
    printf("relay=%u\nrelay_reason=%u\n", words[0], words[1]);
}

static void print_meter(modbus_t *meter)
{
    uint16_t words[48];
    char serial[15] = {0};

    must(modbus_read_registers(meter, IDENTITY, 13, words), "identity");
    for (int i = 0; i < 7; i++) {
        serial[2 * i] = (char) (words[i] >> 8);
        serial[2 * i + 1] = (char) words[i];
    }
    printf("serial=%s\nmap_version=%u\nclock=%" PRIu64 "\n", serial, words[9], number(words + 10, 2));
    must(modbus_read_registers(meter, CREDIT, 5, words), "credit");
    printf("credit=%" PRId64 "\ncredit_unit=%u\n", (int64_t) number(words, 4), words[4]);
    print_relay(meter);
    must(modbus_read_registers(meter, LAST_TOKEN, 2, words), "last token");
    printf("token_count=%" PRIu64 "\n", number(words, 2));
    must(modbus_read_registers(meter, METERING, 6, words), "metering");
    printf("counter=%" PRIu64 "\nload=%" PRIu64 "\n", number(words, 4), number(words + 4, 2));
}

/* Read a result block until its first four words repeat our id. */
static void await_echo(modbus_t *meter, int address, int count, uint64_t id, uint16_t *words)
{
    for (int i = 0; i < LOOKS; i++) {
        must(modbus_read_registers(meter, address, count, words), "result");
        if (number(words, 4) == id)
            return;
        usleep(100000);
    }
    fprintf(stderr, "meter_reader: the meter does not repeat id %" PRIu64 "\n", id);
    exit(1);
}

static void submit_token(modbus_t *meter, const char *digits, uint64_t id)
{
    uint16_t words[9] = {0};

    if (strlen(digits) != 20 || strspn(digits, "0123456789") != 20) {
        fprintf(stderr, "meter_reader: a token has 20 digits\n");
        exit(2);
    }
    for (int i = 0; i < 20; i++)
        words[i / 4] = (uint16_t) (words[i / 4] << 4 | (digits[i] - '0'));
    put(words + 5, id);
    must(modbus_write_registers(meter, TOKEN, 9, words), "token mailbox");
    await_echo(meter, TOKEN_RESULT, 7, id, words);
    printf("token_result=%u\ntoken_tid=%" PRIu64 "\n", words[4], number(words + 5, 2));
}

static void order_relay(modbus_t *meter, int opcode, uint64_t id)
{
    uint16_t words[11] = {0};

    put(words, id);
    words[4] = (uint16_t) opcode;
    words[9] = ARM_KEY;
    words[10] = (uint16_t) ~ARM_KEY;
    must(modbus_write_registers(meter, COMMAND, 11, words), "command mailbox");
    await_echo(meter, COMMAND_RESULT, 10, id, words);
    printf("command_status=%u\ncommand_detail=%u\ncommand_balance=%" PRId64 "\n", words[4], words[5],
           (int64_t) number(words + 6, 4));
    print_relay(meter);
}

static void print_refusal(const char *what, int done)
{
    if (done >= 0)
        printf("%s=done\n", what);
    else if (errno > MODBUS_ENOBASE && errno < EMBBADCRC)
        printf("%s=%d\n", what, errno - MODBUS_ENOBASE);
    else
        must(done, what);
}

static void try_forbidden(modbus_t *meter)
{
    uint16_t words[16] = {0}, got[16];

    print_refusal("write_credit", modbus_write_registers(meter, CREDIT, 4, words));
    print_refusal("write_one_register", modbus_write_register(meter, TOKEN, 1));
    print_refusal("write_coil", modbus_write_bit(meter, 0, 1));
    print_refusal("half_a_token", modbus_write_registers(meter, TOKEN, 5, words));
    print_refusal("token_without_id", modbus_write_registers(meter, TOKEN, 9, words));
    put(words, 77);
    words[4] = 1;
    print_refusal("unarmed_order", modbus_write_registers(meter, COMMAND, 11, words));
    print_refusal("no_such_register", modbus_read_registers(meter, 0x2000, 2, got));
    print_refusal("input_registers", modbus_read_input_registers(meter, IDENTITY, 2, got));
    print_refusal("write_and_read", modbus_write_and_read_registers(meter, TOKEN, 1, words, CREDIT, 4, got));
}

int main(int argc, char **argv)
{
    modbus_t *meter = NULL;

    if (argc >= 5 && strcmp(argv[1], "tcp") == 0)
        meter = modbus_new_tcp("127.0.0.1", atoi(argv[2]));
    else if (argc >= 5 && strcmp(argv[1], "rtu") == 0)
        meter = modbus_new_rtu(argv[2], 9600, 'N', 8, 1);
    if (meter == NULL) {
        fprintf(stderr, "meter_reader tcp|rtu PORT|TTY UNIT read|token|relay|forbidden ...\n");
        return 2;
    }
    modbus_set_slave(meter, atoi(argv[3]));
    modbus_set_response_timeout(meter, 3, 0);
    must(modbus_connect(meter), argv[2]);
    if (strcmp(argv[4], "read") == 0)
        print_meter(meter);
    else if (strcmp(argv[4], "token") == 0 && argc == 7)
        submit_token(meter, argv[5], strtoull(argv[6], NULL, 10));
    else if (strcmp(argv[4], "relay") == 0 && argc == 7)
        order_relay(meter, strcmp(argv[5], "open") == 0 ? 1 : 2, strtoull(argv[6], NULL, 10));
    else if (strcmp(argv[4], "forbidden") == 0)
        try_forbidden(meter);
    else
        return 2;
    modbus_close(meter);
    modbus_free(meter);
    return 0;
}
