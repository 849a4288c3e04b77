// linkemu: a long link between two Ethernet devices, in user space, for kernels without netem. Both ways alike.
//
//     linkemu DEVICE DEVICE [OPTION…]
//
//     --rate BITS        per second; 0 (default): no limit
//     --delay MICROS     one way, after a frame's turn on the line; 0
//     --queue BYTES      the most that may wait for the line; what comes on top is dropped; 64000
//     --loss PARTS       of a million frames that the line loses, each by chance; 0
//     --seed NUMBER      which frames those are; 1
//
// A frame that arrives on one device waits until the line is free, occupies it for its length, may be lost on it, and leaves on the other
// device after the delay. The devices must carry frames as they are on a wire: ethtool -K DEVICE tx off tso off gso off gro off.
// Runs until SIGTERM or SIGINT, then prints one JSON object: what became of the frames, and how late the latest left.
// It runs ahead of every ordinary thread, so that a busy machine does not make a longer link.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { frameBytes = 2048, slotCount = 16384, batch = 64, socketBytes = 16 << 20 };

typedef struct {
    uint64_t due;
    uint32_t length;
    uint8_t frame[frameBytes];
} Slot;

// One direction of the link. Frames are due in the order they came in: `oldest` to `newest - 1` are under way.
typedef struct {
    int from, to;
    Slot *slots;
    uint64_t oldest, newest;
    uint64_t lineFree;
    uint64_t random;
    uint64_t carried, lost, queueFull, tooLong, unsent, latest;
} Direction;

static uint64_t rate, delay, queueBytes = 64000, lossPerMillion, seed = 1;
static volatile sig_atomic_t ending;

static void fail(const char *what) {
    fprintf(stderr, "linkemu: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void end(int number) {
    (void)number;
    ending = 1;
}

static int openDevice(const char *name) {
    int made = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0), size = socketBytes, yes = 1;
    if (made < 0) fail("socket");
    struct sockaddr_ll place = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)if_nametoindex(name)};
    struct packet_mreq everything = {.mr_ifindex = place.sll_ifindex, .mr_type = PACKET_MR_PROMISC};
    if (!place.sll_ifindex) fail(name);
    if (setsockopt(made, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size)
        || setsockopt(made, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof yes)
        || setsockopt(made, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &everything, sizeof everything)
        || bind(made, (struct sockaddr *)&place, sizeof place))
        fail(name);
    return made;
}

static Direction direction(int from, int to, uint64_t random) {
    Slot *slots = mmap(NULL, sizeof(Slot) * slotCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (slots == MAP_FAILED) fail("memory");
    return (Direction){.from = from, .to = to, .slots = slots, .random = random};
}

// splitmix64
static uint64_t chance(Direction *way) {
    uint64_t z = way->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

// --- Frames

// Takes what has arrived.
static void takeIn(Direction *way) {
    for (int i = 0; i < batch; i++) {
        // A full ring is read all the same: what is in it is dropped, as the queue would.
        int isFull = way->newest - way->oldest == slotCount;
        uint8_t spare[frameBytes];
        Slot *slot = &way->slots[way->newest % slotCount];
        ssize_t length = recv(way->from, isFull ? spare : slot->frame, frameBytes, MSG_TRUNC);
        if (length < 0) {
            if (errno != EAGAIN && errno != EINTR && errno != ENETDOWN) fail("receive");
            return;
        }
        if (length > frameBytes) {
            way->tooLong++;
            continue;
        }
        uint64_t time = now(), begins = way->lineFree > time ? way->lineFree : time;
        uint64_t waiting = rate ? (begins - time) * rate / 8 / 1000000000u : 0;
        if (isFull || waiting + (uint64_t)length > queueBytes) {
            way->queueFull++;
            continue;
        }
        way->lineFree = begins + (rate ? (uint64_t)length * 8 * 1000000000u / rate : 0);
        if (chance(way) % 1000000 < lossPerMillion) {
            way->lost++;
            continue;
        }
        slot->due = way->lineFree + delay;
        slot->length = (uint32_t)length;
        way->newest++;
    }
}

// Lets out what is due.
static void letOut(Direction *way) {
    for (; way->oldest < way->newest; way->oldest++) {
        Slot *slot = &way->slots[way->oldest % slotCount];
        uint64_t time = now();
        if (slot->due > time) return;
        if (time - slot->due > way->latest) way->latest = time - slot->due;
        if (send(way->to, slot->frame, slot->length, 0) == (ssize_t)slot->length) way->carried++;
        else way->unsent++;
    }
}

static uint64_t nextDue(const Direction *way) {
    return way->oldest < way->newest ? way->slots[way->oldest % slotCount].due : UINT64_MAX;
}

static void carry(Direction ways[2]) {
    sigset_t blocked, open;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM), sigaddset(&blocked, SIGINT);
    sigprocmask(SIG_BLOCK, &blocked, &open);
    struct sigaction action = {.sa_handler = end};
    sigaction(SIGTERM, &action, NULL), sigaction(SIGINT, &action, NULL);
    while (!ending) {
        for (int i = 0; i < 2; i++) letOut(&ways[i]);
        uint64_t first = nextDue(&ways[0]), other = nextDue(&ways[1]), time = now();
        if (other < first) first = other;
        uint64_t wait = first > time ? first - time : 0;
        struct timespec until = {(time_t)(wait / 1000000000u), (long)(wait % 1000000000u)};
        struct pollfd arrivals[2] = {{ways[0].from, POLLIN, 0}, {ways[1].from, POLLIN, 0}};
        if (ppoll(arrivals, 2, first == UINT64_MAX ? NULL : &until, &open) < 0 && errno != EINTR) fail("poll");
        for (int i = 0; i < 2; i++) takeIn(&ways[i]);
    }
}

// --- The command

static void report(const Direction *way, const char *name, const char *after) {
    struct tpacket_stats socketStatistics = {0};
    socklen_t size = sizeof socketStatistics;
    getsockopt(way->from, SOL_PACKET, PACKET_STATISTICS, &socketStatistics, &size);
    printf("\"%s\": {\"carried\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"queueFull\": %" PRIu64 ", \"tooLong\": %" PRIu64 ", \"unsent\": %" PRIu64
           ", \"missed\": %u, \"latestMicroseconds\": %" PRIu64 "}%s",
           name, way->carried, way->lost, way->queueFull, way->tooLong, way->unsent, socketStatistics.tp_drops, way->latest / 1000, after);
}

static uint64_t number(const char *text) {
    char *rest;
    uint64_t value = strtoull(text, &rest, 10);
    if (rest == text || *rest || *text == '-') {
        fprintf(stderr, "linkemu: '%s' is not a number\n", text);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"rate", required_argument, NULL, 'r'}, {"delay", required_argument, NULL, 'd'}, {"queue", required_argument, NULL, 'q'},
        {"loss", required_argument, NULL, 'l'}, {"seed", required_argument, NULL, 's'}, {0},
    };
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'r': rate = number(optarg); break;
        case 'd': delay = number(optarg) * 1000; break;
        case 'q': queueBytes = number(optarg); break;
        case 'l': lossPerMillion = number(optarg); break;
        case 's': seed = number(optarg); break;
        default: return 2;
        }
    }
    if (argc - optind != 2) {
        fprintf(stderr, "usage: linkemu DEVICE DEVICE [--rate BITS] [--delay MICROS] [--queue BYTES] [--loss PARTS] [--seed NUMBER]\n");
        return 2;
    }
    int a = openDevice(argv[optind]), b = openDevice(argv[optind + 1]);
    Direction ways[2] = {direction(a, b, seed), direction(b, a, ~seed)};
    struct sched_param priority = {.sched_priority = 20};
    if (mlockall(MCL_CURRENT | MCL_FUTURE) || sched_setscheduler(0, SCHED_FIFO, &priority)) fail("scheduling");
    carry(ways);
    printf("{");
    report(&ways[0], "there", ", ");
    report(&ways[1], "back", "}\n");
    return 0;
}
