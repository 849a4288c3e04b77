// lab-copy: moves random bytes through one TCP connection and prints their SHA-256 on both ends.
//
//     lab-copy receive ADDRESS PORT          accepts one connection, reads to its end
//     lab-copy send ADDRESS PORT BYTES       connects, writes BYTES random bytes
//
// Both print 64 hexadecimal digits. ADDRESS is IPv4 or IPv6. A connection that moves nothing for 60 s is an error.

#include <errno.h>
#include <netdb.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { blockBytes = 1 << 18 };

static void fail(const char *what) {
    fprintf(stderr, "lab-copy: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct addrinfo *resolve(const char *address, const char *port) {
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *result;
    int error = getaddrinfo(address, port, &hints, &result);
    if (error) {
        fprintf(stderr, "lab-copy: %s port %s: %s\n", address, port, gai_strerror(error));
        exit(1);
    }
    return result;
}

static void limitSilence(int connection) {
    struct timeval limit = {.tv_sec = 60};
    if (setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0
        || setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0)
        fail("setsockopt");
}

static int acceptOne(const struct addrinfo *at) {
    int yes = 1, listener = socket(at->ai_family, SOCK_STREAM, 0);
    if (listener < 0) fail("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    limitSilence(listener);
    if (bind(listener, at->ai_addr, at->ai_addrlen) < 0) fail("bind");
    if (listen(listener, 1) < 0) fail("listen");
    int connection = accept(listener, NULL, NULL);
    if (connection < 0) fail("accept");
    close(listener);
    return connection;
}

static int connectTo(const struct addrinfo *to) {
    int connection = socket(to->ai_family, SOCK_STREAM, 0);
    if (connection < 0) fail("socket");
    limitSilence(connection);
    if (connect(connection, to->ai_addr, to->ai_addrlen) < 0) fail("connect");
    return connection;
}

// A counter in a cipher's key stream: cheap, never repeats, cannot be compressed or guessed by what carries it.
static EVP_CIPHER_CTX *randomSource(void) {
    unsigned char seed[48];
    FILE *file = fopen("/dev/urandom", "rb");
    if (!file || fread(seed, 1, sizeof seed, file) != sizeof seed) fail("/dev/urandom");
    fclose(file);
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    if (!cipher || !EVP_EncryptInit_ex(cipher, EVP_aes_256_ctr(), NULL, seed, seed + 32)) fail("random source");
    return cipher;
}

static void printSum(EVP_MD_CTX *hash) {
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned int count = 0;
    if (!EVP_DigestFinal_ex(hash, sum, &count)) fail("SHA-256");
    for (unsigned int i = 0; i < count; i++) printf("%02x", sum[i]);
    printf("\n");
}

int main(int argc, char **argv) {
    int sends = argc == 5 && !strcmp(argv[1], "send");
    if (!sends && !(argc == 4 && !strcmp(argv[1], "receive"))) {
        fprintf(stderr, "usage: lab-copy receive ADDRESS PORT | lab-copy send ADDRESS PORT BYTES\n");
        return 2;
    }
    struct addrinfo *place = resolve(argv[2], argv[3]);
    int connection = sends ? connectTo(place) : acceptOne(place);
    if (!sends) limitSilence(connection);
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    if (!hash || !EVP_DigestInit_ex(hash, EVP_sha256(), NULL)) fail("SHA-256");
    static unsigned char zeros[blockBytes], block[blockBytes];

    if (sends) {
        EVP_CIPHER_CTX *source = randomSource();
        for (uint64_t left = strtoull(argv[4], NULL, 10); left > 0;) {
            int count = left < blockBytes ? (int)left : blockBytes, encrypted = 0;
            if (!EVP_EncryptUpdate(source, block, &encrypted, zeros, count)) fail("random source");
            EVP_DigestUpdate(hash, block, (size_t)count);
            for (ssize_t done = 0, written; done < count; done += written)
                if ((written = send(connection, block + done, (size_t)(count - done), MSG_NOSIGNAL)) <= 0) fail("send");
            left -= (uint64_t)count;
        }
        if (shutdown(connection, SHUT_WR) < 0) fail("shutdown");
        // The other end closes when it has read everything.
        ssize_t rest = read(connection, block, sizeof block);
        if (rest != 0) fail("no orderly end");
    } else {
        for (ssize_t count; (count = read(connection, block, sizeof block)) != 0;) {
            if (count < 0) fail("read");
            EVP_DigestUpdate(hash, block, (size_t)count);
        }
    }
    printSum(hash);
    close(connection);
    return 0;
}
