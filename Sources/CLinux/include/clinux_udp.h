#ifndef WARREN_CLINUX_UDP_H
#define WARREN_CLINUX_UDP_H

// UDP sockets with everything in control messages: which of the machine's addresses a datagram came to or leaves from, its ECN bits, and
// many datagrams of one size in one call (GSO, GRO).
//
// Every function returns a result >= 0, or a negated errno.

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

// An IPv4 or IPv6 socket address: the first `length` bytes of `socket`, whatever its type says. The rest is zero.
struct clinux_udp_address {
    struct sockaddr_in6 socket;
    uint32_t length;
};

// One datagram, or several of the same size and path that the kernel has joined.
struct clinux_udp_message {
    void *buffer;
    uint32_t capacity;
    uint32_t length;
    uint16_t segment;  // bytes of each but the last; 0 when it is only one
    uint8_t ecn;       // the two bits of the IP header
    struct clinux_udp_address remote;
    struct clinux_udp_address local;  // where it came to; family 0 when the kernel did not say
};

// What clinux_udp_open makes.
struct clinux_udp_socket {
    int fd;
    struct clinux_udp_address bound;
    bool has_gso;
};

// A non-blocking socket bound to `local`, closed on exec. IPv6 sockets take IPv6 only. Packets may not be fragmented. `mark` other
// than 0 needs CAP_NET_ADMIN, and is refused without. Buffers are as large as allowed up to `buffer_bytes`.
int clinux_udp_open(const struct clinux_udp_address *local, uint32_t mark, uint32_t buffer_bytes,
                    struct clinux_udp_socket *result);

// Reads up to `count` messages, at most 16, without waiting, and says how many there were. Their local addresses have port 0.
int clinux_udp_receive(int fd, struct clinux_udp_message *messages, unsigned count);

// Sends `length` bytes as datagrams of `segment` bytes each, the last may be shorter; as one when `segment` is 0. They leave from the
// address `local` unless that is unspecified. EINTR is retried.
int clinux_udp_send(int fd, const struct clinux_udp_address *local, const struct clinux_udp_address *remote, uint8_t ecn,
                    const void *bytes, size_t length, uint16_t segment);

// The address this machine would send from to reach `remote`, with port 0.
int clinux_udp_source(const struct clinux_udp_address *remote, uint32_t mark, struct clinux_udp_address *local);

#endif
