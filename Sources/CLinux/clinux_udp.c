#define _GNU_SOURCE
#include "clinux_udp.h"

#include <errno.h>
#include <netinet/udp.h>
#include <string.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum { BATCH = 16, CONTROL_BYTES = 128 };

static int set(int fd, int level, int name, int value) { return setsockopt(fd, level, name, &value, sizeof value); }

static void set_buffer(int fd, int forced, int plain, uint32_t bytes) {
    // Beyond the limits of net.core only with CAP_NET_ADMIN.
    if (set(fd, SOL_SOCKET, forced, (int)bytes) < 0) set(fd, SOL_SOCKET, plain, (int)bytes);
}

static bool is_unspecified(const struct clinux_udp_address *address) {
    if (address->socket.sin6_family == AF_INET6) return IN6_IS_ADDR_UNSPECIFIED(&address->socket.sin6_addr);
    const struct sockaddr_in *four = (const struct sockaddr_in *)&address->socket;
    return four->sin_family != AF_INET || four->sin_addr.s_addr == INADDR_ANY;
}

static int fail(int fd) {
    int error = errno;
    close(fd);
    return -error;
}

static int configure(int fd, bool six, uint32_t mark, uint32_t buffer_bytes) {
    if (six && set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1) < 0) return -1;
    if (mark != 0 && setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) < 0) return -1;
    if (six) {
        if (set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1) < 0) return -1;
        if (set(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1) < 0) return -1;
        if (set(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE) < 0) return -1;
    } else {
        if (set(fd, IPPROTO_IP, IP_PKTINFO, 1) < 0) return -1;
        if (set(fd, IPPROTO_IP, IP_RECVTOS, 1) < 0) return -1;
        if (set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE) < 0) return -1;
    }
    set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, buffer_bytes);
    set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, buffer_bytes);
    // Older kernels lack it; then datagrams come one by one.
    set(fd, IPPROTO_UDP, UDP_GRO, 1);
    return 0;
}

int clinux_udp_open(const struct clinux_udp_address *local, uint32_t mark, uint32_t buffer_bytes,
                    struct clinux_udp_socket *result) {
    bool six = local->socket.sin6_family == AF_INET6;
    int fd = socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    if (configure(fd, six, mark, buffer_bytes) < 0) return fail(fd);
    if (bind(fd, (const struct sockaddr *)&local->socket, local->length) < 0) return fail(fd);
    memset(result, 0, sizeof *result);
    socklen_t length = sizeof result->bound.socket;
    if (getsockname(fd, (struct sockaddr *)&result->bound.socket, &length) < 0) return fail(fd);
    result->bound.length = length;
    result->fd = fd;
    int segment;
    length = sizeof segment;
    result->has_gso = getsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment, &length) == 0;
    return 0;
}

static void read_control(struct msghdr *header, struct clinux_udp_message *message) {
    for (struct cmsghdr *control = CMSG_FIRSTHDR(header); control != NULL; control = CMSG_NXTHDR(header, control)) {
        if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(control), sizeof info);
            struct sockaddr_in *local = (struct sockaddr_in *)&message->local.socket;
            local->sin_family = AF_INET;
            local->sin_addr = info.ipi_addr;
            message->local.length = sizeof *local;
        } else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(control), sizeof info);
            struct sockaddr_in6 *local = &message->local.socket;
            local->sin6_family = AF_INET6;
            local->sin6_addr = info.ipi6_addr;
            if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr)) local->sin6_scope_id = info.ipi6_ifindex;
            message->local.length = sizeof *local;
        } else if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_TOS) {
            message->ecn = *(const uint8_t *)CMSG_DATA(control) & 3;
        } else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_TCLASS) {
            int class;
            memcpy(&class, CMSG_DATA(control), sizeof class);
            message->ecn = class & 3;
        } else if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == UDP_GRO) {
            int segment;
            memcpy(&segment, CMSG_DATA(control), sizeof segment);
            if (segment > 0 && segment < 65536) message->segment = (uint16_t)segment;
        }
    }
}

int clinux_udp_receive(int fd, struct clinux_udp_message *messages, unsigned count) {
    struct mmsghdr headers[BATCH];
    struct iovec pieces[BATCH];
    _Alignas(struct cmsghdr) char control[BATCH][CONTROL_BYTES];
    if (count > BATCH) count = BATCH;
    memset(headers, 0, sizeof headers[0] * count);
    for (unsigned i = 0; i < count; i++) {
        struct clinux_udp_message *message = &messages[i];
        memset(&message->remote, 0, sizeof message->remote);
        memset(&message->local, 0, sizeof message->local);
        message->segment = 0;
        message->ecn = 0;
        pieces[i] = (struct iovec){.iov_base = message->buffer, .iov_len = message->capacity};
        headers[i].msg_hdr = (struct msghdr){
            .msg_name = &message->remote.socket,
            .msg_namelen = sizeof message->remote.socket,
            .msg_iov = &pieces[i],
            .msg_iovlen = 1,
            .msg_control = control[i],
            .msg_controllen = CONTROL_BYTES,
        };
    }
    int received = recvmmsg(fd, headers, count, MSG_DONTWAIT, NULL);
    if (received < 0) return -errno;
    for (int i = 0; i < received; i++) {
        struct clinux_udp_message *message = &messages[i];
        message->length = headers[i].msg_len;
        message->remote.length = headers[i].msg_hdr.msg_namelen;
        // What did not fit is no datagram.
        if (headers[i].msg_hdr.msg_flags & MSG_TRUNC) message->length = 0;
        read_control(&headers[i].msg_hdr, message);
    }
    return received;
}

static struct cmsghdr *append(struct msghdr *header, int level, int type, const void *data, size_t length) {
    struct cmsghdr *control = (struct cmsghdr *)((char *)header->msg_control + header->msg_controllen);
    control->cmsg_level = level;
    control->cmsg_type = type;
    control->cmsg_len = CMSG_LEN(length);
    memcpy(CMSG_DATA(control), data, length);
    header->msg_controllen += CMSG_SPACE(length);
    return control;
}

int clinux_udp_send(int fd, const struct clinux_udp_address *local, const struct clinux_udp_address *remote, uint8_t ecn,
                    const void *bytes, size_t length, uint16_t segment) {
    struct iovec piece = {.iov_base = (void *)bytes, .iov_len = length};
    _Alignas(struct cmsghdr) char control[CONTROL_BYTES];
    memset(control, 0, sizeof control);
    struct msghdr header = {
        .msg_name = (void *)&remote->socket,
        .msg_namelen = remote->length,
        .msg_iov = &piece,
        .msg_iovlen = 1,
        .msg_control = control,
    };
    bool six = remote->socket.sin6_family == AF_INET6;
    if (!is_unspecified(local)) {
        if (six) {
            struct in6_pktinfo info = {.ipi6_addr = local->socket.sin6_addr, .ipi6_ifindex = local->socket.sin6_scope_id};
            append(&header, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
        } else {
            struct in_pktinfo info = {.ipi_spec_dst = ((const struct sockaddr_in *)&local->socket)->sin_addr};
            append(&header, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
        }
    }
    if (ecn != 0) {
        int class = ecn;
        append(&header, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_TCLASS : IP_TOS, &class, sizeof class);
    }
    if (segment != 0 && length > segment) append(&header, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment);
    if (header.msg_controllen == 0) header.msg_control = NULL;
    while (sendmsg(fd, &header, MSG_DONTWAIT) < 0) {
        if (errno != EINTR) return -errno;
    }
    return 0;
}

int clinux_udp_source(const struct clinux_udp_address *remote, uint32_t mark, struct clinux_udp_address *local) {
    int fd = socket(remote->socket.sin6_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    if (mark != 0 && setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) < 0) return fail(fd);
    // Chooses a route and sends nothing.
    if (connect(fd, (const struct sockaddr *)&remote->socket, remote->length) < 0) return fail(fd);
    memset(local, 0, sizeof *local);
    socklen_t length = sizeof local->socket;
    if (getsockname(fd, (struct sockaddr *)&local->socket, &length) < 0) return fail(fd);
    local->length = length;
    local->socket.sin6_port = 0;
    close(fd);
    return 0;
}
