// lab-bursts: UDP packets from one network namespace to another, burst by burst, each packet looked at where it arrives.
//
//     lab-bursts FROM TO ADDRESS PORT BYTES PER_BURST BURSTS [CPU]
//
// FROM and TO are names of network namespaces, ADDRESS (IPv4 or IPv6) belongs to TO, BYTES is the payload of each packet. A burst is sent
// packet by packet; the next one begins when all of it has arrived, so that nothing is lost only because the machine is slow: what has not
// come after 10 s is lost. Prints one JSON object.
//
// CPU: run on that processor ahead of every ordinary thread. A thread that is bound to the same processor and reads the packets
// cannot begin before the burst is complete.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { payloadMin = 8, payloadMax = 1472, burstMax = 64, bufferBytes = 8 << 20, lostAfterMilliseconds = 10000, pauseNanoseconds = 1000000 };

typedef struct {
    uint64_t packets, lost, damaged, repeated, disordered;
} Tally;

static void fail(const char *what) {
    fprintf(stderr, "lab-bursts: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

// --- Sockets

// A socket stays in the namespace that it was made in.
static int socketIn(const char *namespace, int family) {
    char path[256];
    snprintf(path, sizeof path, "/var/run/netns/%s", namespace);
    int place = open(path, O_RDONLY | O_CLOEXEC);
    if (place < 0 || setns(place, CLONE_NEWNET)) fail(path);
    close(place);
    int made = socket(family, SOCK_DGRAM, 0), size = bufferBytes;
    if (made < 0) fail("socket");
    if (setsockopt(made, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) || setsockopt(made, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size))
        fail("socket buffer");
    return made;
}

static struct addrinfo *resolve(const char *address, const char *port) {
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_DGRAM}, *result;
    int error = getaddrinfo(address, port, &hints, &result);
    if (error) {
        fprintf(stderr, "lab-bursts: %s port %s: %s\n", address, port, gai_strerror(error));
        exit(1);
    }
    return result;
}

static void runFirst(int processor) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    struct sched_param priority = {.sched_priority = 10};
    if (sched_setaffinity(0, sizeof one, &one) || sched_setscheduler(0, SCHED_FIFO, &priority)) fail("scheduling");
}

// --- Packets

// Eight bytes of number, then bytes that follow from it.
static void fill(uint8_t *payload, int bytes, uint64_t number) {
    memcpy(payload, &number, sizeof number);
    uint64_t state = number * 0x9e3779b97f4a7c15u + 1;
    for (int i = sizeof number; i < bytes; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        payload[i] = (uint8_t)state;
    }
}

static void sendBurst(int sender, uint64_t first, int count, int bytes) {
    static uint8_t payloads[burstMax][payloadMax];
    for (int i = 0; i < count; i++) fill(payloads[i], bytes, first + (uint64_t)i);
    for (int i = 0; i < count; i++)
        if (send(sender, payloads[i], (size_t)bytes, 0) != bytes && errno != ECONNREFUSED) fail("send");
}

// Waits for the packets `first` to `first + count - 1`. One of an earlier burst was counted as lost: it came later than anyone waits.
static void receiveBurst(int receiver, uint64_t first, int count, int bytes, Tally *tally) {
    uint8_t payload[payloadMax + 1], expected[payloadMax];
    uint64_t arrived = 0, next = first;
    int64_t deadline = now() + lostAfterMilliseconds * 1000000ll;
    for (int left = count; left > 0;) {
        struct pollfd wait = {receiver, POLLIN, 0};
        int64_t remaining = deadline - now();
        if (remaining <= 0) {
            tally->lost += (uint64_t)left;
            return;
        }
        if (poll(&wait, 1, (int)(remaining / 1000000) + 1) < 0 && errno != EINTR) fail("poll");
        ssize_t length = recv(receiver, payload, sizeof payload, MSG_DONTWAIT);
        if (length < 0) {
            if (errno != EAGAIN && errno != EINTR) fail("receive");
            continue;
        }
        uint64_t number;
        memcpy(&number, payload, sizeof number);
        if (length != bytes || number >= first + (uint64_t)count) {
            tally->damaged++;
            continue;
        }
        fill(expected, bytes, number);
        if (memcmp(payload, expected, (size_t)bytes)) {
            tally->damaged++;
            continue;
        }
        if (number < first || arrived >> (number - first) & 1) {
            tally->repeated++;
            continue;
        }
        arrived |= 1ull << (number - first);
        if (number < next) tally->disordered++;
        else next = number + 1;
        left--;
    }
}

int main(int argc, char **argv) {
    int bytes = argc > 5 ? atoi(argv[5]) : 0, perBurst = argc > 6 ? atoi(argv[6]) : 0, bursts = argc > 7 ? atoi(argv[7]) : 0;
    if (argc < 8 || argc > 9 || bytes < payloadMin || bytes > payloadMax || perBurst < 1 || perBurst > burstMax || bursts < 1) {
        fprintf(stderr, "usage: lab-bursts FROM TO ADDRESS PORT BYTES(%d-%d) PER_BURST(1-%d) BURSTS [CPU]\n", payloadMin, payloadMax, burstMax);
        return 2;
    }
    struct addrinfo *place = resolve(argv[3], argv[4]);
    int receiver = socketIn(argv[2], place->ai_family);
    if (bind(receiver, place->ai_addr, place->ai_addrlen)) fail("bind");
    int sender = socketIn(argv[1], place->ai_family);
    if (connect(sender, place->ai_addr, place->ai_addrlen)) fail("connect");
    if (argc == 9) runFirst(atoi(argv[8]));

    Tally tally = {0};
    int64_t started = now();
    for (int burst = 0; burst < bursts; burst++) {
        sendBurst(sender, tally.packets, perBurst, bytes);
        receiveBurst(receiver, tally.packets, perBurst, bytes, &tally);
        tally.packets += (uint64_t)perBurst;
        struct timespec pause = {0, pauseNanoseconds};
        nanosleep(&pause, NULL);
    }
    printf("{\"bursts\": %d, \"packets\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"damaged\": %" PRIu64 ", \"repeated\": %" PRIu64
           ", \"disordered\": %" PRIu64 ", \"seconds\": %.3f}\n",
           bursts, tally.packets, tally.lost, tally.damaged, tally.repeated, tally.disordered, (double)(now() - started) / 1e9);
    return 0;
}
