#ifndef WARREN_CLINUX_H
#define WARREN_CLINUX_H

// What Swift cannot see of Linux: function-like macros (the TUN ioctls), structures of headers outside Glibc's module map, and
// calls whose errno must be read before the Swift runtime can overwrite it.
//
// Every function returns a result >= 0, or a negated errno.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// Processor ----------------------------------------------------------------------------------------------------------------------

// Whether the processor has instructions for AES and for the carry-less multiplication that GCM needs.
bool clinux_has_fast_aes(void);

// TUN ----------------------------------------------------------------------------------------------------------------------------

// Bits of TUNSETOFFLOAD. The last two came with Linux 6.2 and are missing in older headers.
enum clinux_tun_offload {
    CLINUX_TUN_CSUM = 0x01,
    CLINUX_TUN_TSO4 = 0x02,
    CLINUX_TUN_TSO6 = 0x04,
    CLINUX_TUN_TSO_ECN = 0x08,
    CLINUX_TUN_USO4 = 0x20,
    CLINUX_TUN_USO6 = 0x40,
};

// The call that failed in clinux_tun_open.
enum clinux_tun_step {
    CLINUX_TUN_STEP_OPEN = 0,         // open("/dev/net/tun")
    CLINUX_TUN_STEP_ATTACH = 1,       // TUNSETIFF
    CLINUX_TUN_STEP_HEADER_SIZE = 2,  // TUNSETVNETHDRSZ
    CLINUX_TUN_STEP_OFFLOAD = 3,      // TUNSETOFFLOAD 0
};

struct clinux_tun {
    int fd;
    uint32_t offload;  // the bits the kernel accepted
    int failed_step;   // meaningful after a failure only
    char name[16];     // the kernel's name for the interface, NUL-terminated
};

// Opens or creates the TUN interface `name` (at most 15 bytes; "%d" in it is numbered by the kernel). Packets carry a
// 10-byte virtio_net_hdr and no packet information; the descriptor is non-blocking and closed on exec.
// Of `offload` the largest set this kernel takes is switched on: USO needs Linux 6.2.
int clinux_tun_open(const char *name, uint32_t offload, struct clinux_tun *result);

// read(2), for the sake of its errno. EINTR is retried.
ssize_t clinux_read(int fd, void *buffer, size_t length);

// One writev(2) of two pieces, which a TUN takes as one packet. EINTR is retried.
ssize_t clinux_write_pair(int fd, const void *first, size_t first_length, const void *second, size_t second_length);

// The MTU of an interface. SIOCGIFMTU takes a struct ifreq, whose union Swift imports poorly.
int clinux_interface_mtu(const char *name);

// Sockets ------------------------------------------------------------------------------------------------------------------------

struct clinux_credentials {
    pid_t pid;
    uid_t uid;
    gid_t gid;
};

// Who is at the far end of a Unix socket (SO_PEERCRED). struct ucred is hidden behind _GNU_SOURCE.
int clinux_peer_credentials(int fd, struct clinux_credentials *result);

// Marks what a socket sends (SO_MARK). Needs CAP_NET_ADMIN.
int clinux_set_mark(int fd, uint32_t mark);

// Asks for a congestion control by name (TCP_CONGESTION), for instance "bbr".
int clinux_tcp_set_congestion(int fd, const char *name);

// The congestion control in use, NUL-terminated. `capacity` should be 16 (TCP_CA_NAME_MAX) or more.
int clinux_tcp_congestion(int fd, char *name, size_t capacity);

// A TCP socket counts as writable only while fewer than `bytes` of it are unsent (TCP_NOTSENT_LOWAT).
int clinux_tcp_set_notsent_lowat(int fd, uint32_t bytes);

// What we read of the kernel's struct tcp_info; Glibc's copy of it ends before these fields.
struct clinux_tcp_info {
    uint32_t rtt_microseconds;
    uint32_t rtt_variance_microseconds;
    uint32_t minimum_rtt_microseconds;
    uint32_t congestion_window_segments;
    uint32_t segment_bytes;
    uint32_t unacknowledged_segments;
    uint32_t unsent_bytes;
    uint32_t retransmitted_segments;
    uint64_t delivery_rate_bytes_per_second;
};

// The state of a TCP connection (TCP_INFO). A field this kernel does not know is 0.
int clinux_tcp_info(int fd, struct clinux_tcp_info *result);

// Names --------------------------------------------------------------------------------------------------------------------------

// An IPv4 name server, in host byte order.
struct clinux_name_server {
    uint32_t ipv4;
    uint16_t port;
};

// Asks for the TXT records of a name, as it is: no search list. `server` stands for those of the system when it is NULL. Blocks, at
// most for some seconds per server.
//
// Writes up to `limit` records, each as a 16-bit big-endian length and that many bytes: the strings of a record are joined. Returns the
// bytes written, or a negated errno: ENOENT no such name, ENODATA no such record, EAGAIN no answer, EBADMSG an answer that is not well
// formed, EMSGSIZE one that `capacity` does not hold, EIO anything else.
ssize_t clinux_dns_texts(
    const char *name, const struct clinux_name_server *server, int limit, uint8_t *buffer, size_t capacity);

// Errors and threads -------------------------------------------------------------------------------------------------------------

// The system's text for an errno, NUL-terminated. Which of two incompatible strerror_r a Swift file sees depends on the C library.
void clinux_error_text(int code, char *text, size_t capacity);

// A non-blocking eventfd, closed on exec. <sys/eventfd.h> is not in Glibc's module map.
int clinux_eventfd(void);

// Makes the eventfd readable.
int clinux_eventfd_signal(int fd);

// Makes the eventfd unreadable again.
int clinux_eventfd_drain(int fd);

// Names the calling thread, as `top -H` shows it. pthread_setname_np is hidden behind _GNU_SOURCE.
int clinux_name_thread(const char *name);

#endif
