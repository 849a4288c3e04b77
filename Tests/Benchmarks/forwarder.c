/* forwarder: the least work a stream-based overlay can do, to measure Warren against.
 *
 * It joins a TUN device to one TCP connection, one thread per direction: no handshake, no peers, no routes, no check of what
 * arrives, and a key that is fixed and public. Never use it for anything but measuring.
 *
 *     forwarder --listen  10.0.0.2:4117 --tun t0
 *     forwarder --connect 10.0.0.2:4117 --tun t0 [--cipher chacha20|aes256gcm] [--record BYTES]
 *               [--congestion NAME] [--unsent BYTES] [--nagle]
 *
 * A frame is a 4-byte big-endian length and what one read of the TUN gave: a virtio_net_hdr and a packet, up to 64 KiB of one flow.
 * The frames form a byte stream that is cut into records: 2-byte big-endian length, ciphertext, 16-byte tag. A record may hold many
 * frames, and a frame may span records. Whoever starts it sets address and MTU of the device.
 *
 * cc -O2 -o forwarder forwarder.c -lcrypto -lpthread
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef TUN_F_USO4 /* Linux 6.2 */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

enum {
    FRAME_HEAD = 4,
    FRAME_BODY_MAX = sizeof(struct virtio_net_hdr) + 65535,
    FRAME_MAX = FRAME_HEAD + FRAME_BODY_MAX,
    RECORD_HEAD = 2,
    TAG = 16,
    RECORD_MAX = 65535 - TAG,
    RECORD_MIN = 1024,
    BATCH = 128 << 10,                                  /* plaintext at which a burst is sent though the TUN has more */
    BATCH_RECORDS = (BATCH + FRAME_MAX) / RECORD_MIN + 1,
    RECEIVE = 512 << 10,
};

static struct {
    const char *tun;
    const char *congestion;
    const EVP_CIPHER *cipher;
    struct sockaddr_in address;
    int listens, unsent, nodelay;
    size_t record;
} options = {.congestion = "bbr", .unsent = 128 << 10, .nodelay = 1, .record = RECORD_MAX};

static int tun, sock;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void refuse(const char *what) {
    fprintf(stderr, "forwarder: %s\n", what);
    exit(2);
}

static void *reserve(size_t size) {
    void *memory = malloc(size);
    if (!memory) fail("malloc");
    return memory;
}

static void await(int fd, short events) {
    struct pollfd waiting = {.fd = fd, .events = events};
    if (poll(&waiting, 1, -1) < 0 && errno != EINTR) fail("poll");
}

/* --- Sealing */

/* One direction's cipher. The nonce names the sender and counts its records. */
typedef struct {
    EVP_CIPHER_CTX *context;
    uint64_t records;
    int seals;
    uint8_t sender;
} Sealer;

static Sealer sealer(int seals) {
    static const unsigned char key[32] = "a public key: for measuring only";
    Sealer made = {.context = EVP_CIPHER_CTX_new(), .seals = seals, .sender = seals == options.listens};
    if (!made.context || !EVP_CipherInit_ex(made.context, options.cipher, NULL, key, NULL, seals)) fail("cipher");
    return made;
}

static void next_nonce(Sealer *s) {
    uint8_t nonce[12] = {s->sender};
    memcpy(nonce + 4, &s->records, sizeof s->records);
    s->records++;
    if (!EVP_CipherInit_ex(s->context, NULL, NULL, NULL, nonce, -1)) fail("nonce");
}

/* Encrypts in place. */
static void seal(Sealer *s, uint8_t *data, size_t length, uint8_t *tag) {
    int done;
    next_nonce(s);
    if (!EVP_EncryptUpdate(s->context, data, &done, data, (int)length) || !EVP_EncryptFinal_ex(s->context, data + done, &done)
        || !EVP_CIPHER_CTX_ctrl(s->context, EVP_CTRL_AEAD_GET_TAG, TAG, tag))
        fail("seal");
}

/* Decrypts to `plain`, where the pieces of a frame that spans records meet: that saves a copy, which opening in place would need. */
static void open_record(Sealer *s, uint8_t *plain, uint8_t *data, size_t length) {
    int done;
    next_nonce(s);
    if (!EVP_CIPHER_CTX_ctrl(s->context, EVP_CTRL_AEAD_SET_TAG, TAG, data + length)
        || !EVP_DecryptUpdate(s->context, plain, &done, data, (int)length) || EVP_DecryptFinal_ex(s->context, plain + done, &done) <= 0)
        refuse("a record does not open");
}

/* --- TUN to TCP */

/* Gathers frames until the TUN is empty or the batch is full; returns their length. Waits for the first. */
static size_t gather(uint8_t *plain) {
    size_t have = 0;
    while (have < BATCH) {
        ssize_t length = read(tun, plain + have + FRAME_HEAD, FRAME_BODY_MAX);
        if (length < 0 && errno == EAGAIN) {
            if (have) break;
            await(tun, POLLIN);
        } else if (length < 0) {
            if (errno != EINTR) fail("TUN read");
        } else {
            uint32_t head = htonl((uint32_t)length);
            memcpy(plain + have, &head, FRAME_HEAD);
            have += FRAME_HEAD + (size_t)length;
        }
    }
    return have;
}

static void send_all(struct iovec *part, size_t parts) {
    while (parts) {
        ssize_t sent = writev(sock, part, (int)parts);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) fail("socket write");
        for (; parts && (size_t)sent >= part->iov_len; part++, parts--) sent -= (ssize_t)part->iov_len;
        if (!parts) return;
        part->iov_base = (uint8_t *)part->iov_base + sent;
        part->iov_len -= (size_t)sent;
    }
}

static void *tun_to_tcp(void *unused) {
    Sealer cipher = sealer(1);
    uint8_t *plain = reserve(BATCH + FRAME_MAX);
    /* What stands between two records: the tag of one, the length of the next. Kept apart, so that the records stay where they are. */
    static uint8_t seams[BATCH_RECORDS + 1][TAG + RECORD_HEAD];
    static struct iovec parts[2 * BATCH_RECORDS + 1];
    for (;;) {
        size_t have = gather(plain), records = 0;
        for (size_t at = 0; at < have; records++) {
            size_t length = have - at < options.record ? have - at : options.record;
            uint8_t *head = seams[records] + TAG;
            head[0] = (uint8_t)((length + TAG) >> 8);
            head[1] = (uint8_t)(length + TAG);
            seal(&cipher, plain + at, length, seams[records + 1]);
            parts[2 * records] = (struct iovec){seams[records], TAG + RECORD_HEAD};
            parts[2 * records + 1] = (struct iovec){plain + at, length};
            at += length;
        }
        parts[0] = (struct iovec){seams[0] + TAG, RECORD_HEAD};
        parts[2 * records] = (struct iovec){seams[records], TAG};
        send_all(parts, 2 * records + 1);
    }
    return unused;
}

/* --- TCP to TUN */

static void put_packet(const uint8_t *body, size_t length) {
    while (write(tun, body, length) < 0) {
        if (errno == EAGAIN) await(tun, POLLOUT);
        else if (errno == EIO || errno == EINVAL) return; /* the device is down, or the kernel does not want the packet */
        else if (errno != EINTR) fail("TUN write");
    }
}

/* Opens all whole records at `data` to the end of `plain`; returns the bytes read. */
static size_t open_records(Sealer *cipher, uint8_t *data, size_t have, uint8_t *plain, size_t *filled) {
    size_t at = 0;
    while (have - at >= RECORD_HEAD) {
        size_t length = (size_t)data[at] << 8 | data[at + 1];
        if (length < TAG) refuse("a record is too short");
        if (have - at < RECORD_HEAD + length) break;
        open_record(cipher, plain + *filled, data + at + RECORD_HEAD, length - TAG);
        *filled += length - TAG;
        at += RECORD_HEAD + length;
    }
    return at;
}

/* Writes all whole frames at `plain` to the TUN; returns the bytes read. */
static size_t put_frames(const uint8_t *plain, size_t have) {
    size_t at = 0;
    while (have - at >= FRAME_HEAD) {
        uint32_t length;
        memcpy(&length, plain + at, FRAME_HEAD);
        length = ntohl(length);
        if (length > FRAME_BODY_MAX) refuse("a frame is too long");
        if (have - at < FRAME_HEAD + length) break;
        put_packet(plain + at + FRAME_HEAD, length);
        at += FRAME_HEAD + length;
    }
    return at;
}

static void *tcp_to_tun(void *unused) {
    Sealer cipher = sealer(0);
    uint8_t *data = reserve(RECEIVE), *plain = reserve(RECEIVE + FRAME_MAX);
    for (size_t have = 0, filled = 0;;) {
        ssize_t length = read(sock, data + have, RECEIVE - have);
        if (length < 0 && errno == EINTR) continue;
        if (length < 0) fail("socket read");
        if (length == 0) exit(0);
        have += (size_t)length;
        size_t used = open_records(&cipher, data, have, plain, &filled);
        memmove(data, data + used, have -= used);
        used = put_frames(plain, filled);
        memmove(plain, plain + used, filled -= used);
    }
    return unused;
}

/* --- Start */

static int open_tun(void) {
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    strncpy(request.ifr_name, options.tun, IFNAMSIZ - 1);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request)) fail("TUN");
    unsigned tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    if (ioctl(fd, TUNSETOFFLOAD, tcp | TUN_F_USO4 | TUN_F_USO6) && ioctl(fd, TUNSETOFFLOAD, tcp)) fail("TUNSETOFFLOAD");
    return fd;
}

static void set_option(int fd, int name, const void *value, socklen_t size, const char *what) {
    if (setsockopt(fd, IPPROTO_TCP, name, value, size)) fail(what);
}

static int new_socket(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one)) fail("socket");
    set_option(fd, TCP_CONGESTION, options.congestion, (socklen_t)strlen(options.congestion), "TCP_CONGESTION");
    set_option(fd, TCP_NODELAY, &options.nodelay, sizeof options.nodelay, "TCP_NODELAY");
    if (options.unsent) set_option(fd, TCP_NOTSENT_LOWAT, &options.unsent, sizeof options.unsent, "TCP_NOTSENT_LOWAT");
    return fd;
}

/* An accepted connection inherits the options of the listening one. */
static int accept_one(void) {
    int listener = new_socket();
    if (bind(listener, (struct sockaddr *)&options.address, sizeof options.address) || listen(listener, 1)) fail("listen");
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) fail("accept");
    close(listener);
    return fd;
}

/* The other side may still be starting. */
static int connect_patiently(void) {
    for (int attempt = 0; attempt < 100; attempt++) {
        int fd = new_socket();
        if (!connect(fd, (struct sockaddr *)&options.address, sizeof options.address)) return fd;
        close(fd);
        usleep(50000);
    }
    fail("connect");
    return -1;
}

static void parse(int argc, char **argv) {
    static const struct option known[] = {{"listen", 1, 0, 'l'}, {"connect", 1, 0, 'c'}, {"tun", 1, 0, 't'}, {"cipher", 1, 0, 'e'},
        {"record", 1, 0, 'r'}, {"congestion", 1, 0, 'b'}, {"unsent", 1, 0, 'u'}, {"nagle", 0, 0, 'n'}, {0}};
    char *address = NULL;
    options.cipher = EVP_chacha20_poly1305();
    for (int name; (name = getopt_long(argc, argv, "", known, NULL)) != -1;) switch (name) {
        case 'l': options.listens = 1; /* fall through */
        case 'c': address = optarg; break;
        case 't': options.tun = optarg; break;
        case 'e':
            if (!strcmp(optarg, "aes256gcm")) options.cipher = EVP_aes_256_gcm();
            else if (strcmp(optarg, "chacha20")) refuse("--cipher is chacha20 or aes256gcm");
            break;
        case 'r': options.record = strtoul(optarg, NULL, 10); break;
        case 'b': options.congestion = optarg; break;
        case 'u': options.unsent = atoi(optarg); break;
        case 'n': options.nodelay = 0; break;
        default: exit(2);
    }
    if (options.record < RECORD_MIN || options.record > RECORD_MAX) refuse("--record is 1024 to 65519 bytes");
    char *colon = address ? strrchr(address, ':') : NULL;
    if (!colon || !options.tun) refuse("--tun and one of --listen and --connect are needed");
    *colon = 0;
    options.address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
    if (inet_pton(AF_INET, address, &options.address.sin_addr) != 1) refuse("not an IPv4 address");
}

int main(int argc, char **argv) {
    parse(argc, argv);
    tun = open_tun();
    sock = options.listens ? accept_one() : connect_patiently();
    pthread_t sends, receives;
    if (pthread_create(&sends, NULL, tun_to_tcp, NULL) || pthread_create(&receives, NULL, tcp_to_tun, NULL)) fail("thread");
    pthread_join(sends, NULL);
    return 0;
}
