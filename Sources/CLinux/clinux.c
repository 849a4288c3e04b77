#define _GNU_SOURCE
#include "clinux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/tcp.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <netinet/in.h>
#include <unistd.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

// Processor ----------------------------------------------------------------------------------------------------------------------

bool clinux_has_fast_aes(void) {
#if defined(__x86_64__) || defined(__i386__)
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_AES) && (ecx & bit_PCLMUL);
#elif defined(__aarch64__)
    unsigned long capabilities = getauxval(AT_HWCAP);
    return (capabilities & HWCAP_AES) && (capabilities & HWCAP_PMULL);
#else
    return false;
#endif
}

static int failure(int result) { return result < 0 ? -errno : 0; }

// TUN ----------------------------------------------------------------------------------------------------------------------------

static int give_up(struct clinux_tun *tun, int step) {
    int code = -errno;
    tun->failed_step = step;
    if (tun->fd >= 0) close(tun->fd);
    tun->fd = -1;
    return code;
}

static uint32_t set_offload(int fd, uint32_t wanted) {
    const uint32_t base = CLINUX_TUN_CSUM, tso = CLINUX_TUN_TSO4 | CLINUX_TUN_TSO6, uso = CLINUX_TUN_USO4 | CLINUX_TUN_USO6;
    // The kernel refuses a set as a whole when one bit of it is unknown, so smaller sets follow.
    const uint32_t steps[] = {base | tso | CLINUX_TUN_TSO_ECN | uso, base | tso | CLINUX_TUN_TSO_ECN, base | tso, base};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        uint32_t set = wanted & steps[i];
        if (set != 0 && ioctl(fd, TUNSETOFFLOAD, (unsigned long)set) == 0) return set;
    }
    return 0;
}

int clinux_tun_open(const char *name, uint32_t offload, struct clinux_tun *result) {
    memset(result, 0, sizeof *result);
    result->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (result->fd < 0) return give_up(result, CLINUX_TUN_STEP_OPEN);

    struct ifreq request;
    memset(&request, 0, sizeof request);
    if (strlen(name) >= sizeof request.ifr_name) {
        errno = ENAMETOOLONG;
        return give_up(result, CLINUX_TUN_STEP_ATTACH);
    }
    strcpy(request.ifr_name, name);
    request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
    if (ioctl(result->fd, TUNSETIFF, &request) < 0) return give_up(result, CLINUX_TUN_STEP_ATTACH);
    memcpy(result->name, request.ifr_name, sizeof result->name - 1);

    int header_size = 10;
    if (ioctl(result->fd, TUNSETVNETHDRSZ, &header_size) < 0) return give_up(result, CLINUX_TUN_STEP_HEADER_SIZE);

    result->offload = set_offload(result->fd, offload);
    // A persistent interface keeps what its last user had switched on.
    if (result->offload == 0 && ioctl(result->fd, TUNSETOFFLOAD, 0UL) < 0) return give_up(result, CLINUX_TUN_STEP_OFFLOAD);
    return 0;
}

ssize_t clinux_read(int fd, void *buffer, size_t length) {
    ssize_t count;
    do count = read(fd, buffer, length);
    while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

ssize_t clinux_write_pair(int fd, const void *first, size_t first_length, const void *second, size_t second_length) {
    const struct iovec pieces[2] = {
        {.iov_base = (void *)first, .iov_len = first_length},
        {.iov_base = (void *)second, .iov_len = second_length},
    };
    ssize_t count;
    do count = writev(fd, pieces, 2);
    while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

int clinux_interface_mtu(const char *name) {
    struct ifreq request;
    memset(&request, 0, sizeof request);
    if (strlen(name) >= sizeof request.ifr_name) return -ENAMETOOLONG;
    strcpy(request.ifr_name, name);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    int code = failure(ioctl(fd, SIOCGIFMTU, &request));
    close(fd);
    return code < 0 ? code : request.ifr_mtu;
}

// Sockets ------------------------------------------------------------------------------------------------------------------------

int clinux_peer_credentials(int fd, struct clinux_credentials *result) {
    struct ucred peer;
    socklen_t length = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0) return -errno;
    // A socket that never had a peer reads as process 0.
    if (peer.pid == 0) return -ENOTCONN;
    *result = (struct clinux_credentials){.pid = peer.pid, .uid = peer.uid, .gid = peer.gid};
    return 0;
}

int clinux_set_mark(int fd, uint32_t mark) { return failure(setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark)); }

int clinux_tcp_set_congestion(int fd, const char *name) {
    return failure(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)strlen(name)));
}

int clinux_tcp_congestion(int fd, char *name, size_t capacity) {
    if (capacity == 0) return -EINVAL;
    memset(name, 0, capacity);
    socklen_t length = (socklen_t)(capacity - 1);
    return failure(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length));
}

int clinux_tcp_set_notsent_lowat(int fd, uint32_t bytes) {
    return failure(setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof bytes));
}

int clinux_tcp_info(int fd, struct clinux_tcp_info *result) {
    struct tcp_info info;
    memset(&info, 0, sizeof info);
    socklen_t length = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0) return -errno;
    *result = (struct clinux_tcp_info){
        .rtt_microseconds = info.tcpi_rtt,
        .rtt_variance_microseconds = info.tcpi_rttvar,
        .minimum_rtt_microseconds = info.tcpi_min_rtt,
        .congestion_window_segments = info.tcpi_snd_cwnd,
        .segment_bytes = info.tcpi_snd_mss,
        .unacknowledged_segments = info.tcpi_unacked,
        .unsent_bytes = info.tcpi_notsent_bytes,
        .retransmitted_segments = info.tcpi_total_retrans,
        .delivery_rate_bytes_per_second = info.tcpi_delivery_rate,
    };
    return 0;
}

// Errors and threads -------------------------------------------------------------------------------------------------------------

void clinux_error_text(int code, char *text, size_t capacity) {
    char buffer[128];
    if (capacity == 0) return;
    strncpy(text, strerror_r(code, buffer, sizeof buffer), capacity - 1);
    text[capacity - 1] = 0;
}

int clinux_eventfd(void) {
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int clinux_eventfd_signal(int fd) {
    const uint64_t one = 1;
    // EAGAIN means that the counter is full, and so the descriptor readable already.
    return write(fd, &one, sizeof one) < 0 && errno != EAGAIN ? -errno : 0;
}

int clinux_eventfd_drain(int fd) {
    uint64_t count;
    return read(fd, &count, sizeof count) < 0 && errno != EAGAIN ? -errno : 0;
}

int clinux_name_thread(const char *name) { return -pthread_setname_np(pthread_self(), name); }
