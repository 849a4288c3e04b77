/* udpload: UDP packets at an offered rate, counted where they arrive.
 *
 *     udpload receive ADDRESS PORT                         ends by itself half a second after the last packet
 *     udpload send ADDRESS PORT BYTES PER_SECOND SECONDS   BYTES of payload in each packet
 *
 * Each prints one JSON object. The sender wakes every millisecond and sends what is due, as an application does that works in ticks;
 * it never makes up for more than four missed ticks, so that a stall does not end in a flood. A packet carries its number: the receiver
 * says how many came out of order.
 *
 * cc -O2 -o udpload udpload.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

enum { TICK = 1000000, MISSED_TICKS_MAX = 4, BURST_MAX = 64, PAYLOAD_MIN = 8, PAYLOAD_MAX = 1472 };

static uint8_t payloads[BURST_MAX][PAYLOAD_MAX];
static struct iovec parts[BURST_MAX];
static struct mmsghdr messages[BURST_MAX];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static void prepare(size_t size) {
    for (int i = 0; i < BURST_MAX; i++) {
        parts[i] = (struct iovec){payloads[i], size};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
}

/* --- Sending */

/* Sends packets numbered from `first`; returns how many the kernel took. */
static int send_burst(int sock, uint64_t first, int64_t count) {
    if (count > BURST_MAX) count = BURST_MAX;
    for (int i = 0; i < count; i++) {
        uint64_t number = first + (uint64_t)i;
        memcpy(payloads[i], &number, sizeof number);
    }
    int sent = sendmmsg(sock, messages, (unsigned)count, 0);
    if (sent >= 0) return sent;
    if (errno == ECONNREFUSED || errno == EINTR || errno == ENOBUFS) return 0;
    fail("send");
    return 0;
}

static void send_load(int sock, double rate, double seconds) {
    prctl(PR_SET_TIMERSLACK, 1); /* nanoseconds: a tick comes when it is due, not when it is convenient */
    int64_t started = now(), end = started + (int64_t)(seconds * 1e9), tick = started, credited = started;
    double due = 0;
    uint64_t sent = 0;
    while (tick < end) {
        int64_t time = now(), passed = time - credited;
        if (passed > MISSED_TICKS_MAX * TICK) passed = MISSED_TICKS_MAX * TICK;
        credited = time;
        due += rate * (double)passed / 1e9;
        while (due >= 1) {
            int taken = send_burst(sock, sent, (int64_t)due);
            if (!taken) due = 0;
            sent += (uint64_t)taken;
            due -= taken;
        }
        tick += TICK;
        struct timespec until = {tick / 1000000000, tick % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    }
    printf("{\"packets\": %lu, \"seconds\": %.3f}\n", sent, (double)(now() - started) / 1e9);
}

/* --- Receiving */

static void receive_load(int sock) {
    uint64_t packets = 0, disordered = 0, next = 0;
    int64_t first = 0, last = 0;
    for (;;) {
        int count = recvmmsg(sock, messages, BURST_MAX, MSG_WAITFORONE, NULL);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0 && errno != EAGAIN) fail("receive");
        if (count < 0) {
            if (packets) break;
            continue;
        }
        last = now();
        if (!packets) first = last;
        for (int i = 0; i < count; i++) {
            uint64_t number;
            if (messages[i].msg_len < PAYLOAD_MIN) continue;
            memcpy(&number, payloads[i], sizeof number);
            packets++;
            if (number < next) disordered++;
            else next = number + 1;
        }
    }
    printf("{\"packets\": %lu, \"disordered\": %lu, \"seconds\": %.3f}\n", packets, disordered, (double)(last - first) / 1e9);
}

int main(int argc, char **argv) {
    int sends = argc == 7 && !strcmp(argv[1], "send");
    if (!sends && !(argc == 4 && !strcmp(argv[1], "receive"))) {
        fprintf(stderr, "udpload receive ADDRESS PORT | send ADDRESS PORT BYTES PER_SECOND SECONDS\n");
        return 2;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[3]))};
    int sock = socket(AF_INET, SOCK_DGRAM, 0), buffer = 8 << 20;
    if (sock < 0 || inet_pton(AF_INET, argv[2], &address.sin_addr) != 1) fail("address");
    if (sends) {
        int size = atoi(argv[4]);
        if (size < PAYLOAD_MIN || size > PAYLOAD_MAX) return 2;
        if (connect(sock, (struct sockaddr *)&address, sizeof address)) fail("connect");
        prepare((size_t)size);
        send_load(sock, atof(argv[5]), atof(argv[6]));
    } else {
        struct timeval quiet = {.tv_usec = 500000};
        if (setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer)
            || setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &quiet, sizeof quiet))
            fail("socket option");
        if (bind(sock, (struct sockaddr *)&address, sizeof address)) fail("bind");
        prepare(PAYLOAD_MAX);
        receive_load(sock);
    }
    return 0;
}
