#define _GNU_SOURCE
#include "clinux.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <stdlib.h>
#include <string.h>

// The largest DNS message there can be: over TCP its length has 16 bits.
enum { message_bytes = 65535 };

static int explain(const struct __res_state *state) {
    switch (state->res_h_errno) {
    case HOST_NOT_FOUND: return -ENOENT;
    case NO_DATA: return -ENODATA;
    case TRY_AGAIN: return -EAGAIN;
    default: return -EIO;
    }
}

// Appends the strings of one TXT record as one, behind its length. Returns the bytes written, or a negated errno.
static ssize_t append_text(const ns_rr *record, uint8_t *buffer, size_t capacity) {
    const uint8_t *data = ns_rr_rdata(*record);
    size_t length = ns_rr_rdlen(*record), written = 2, at = 0;
    if (capacity < 2) return -EMSGSIZE;
    while (at < length) {
        size_t part = data[at++];
        if (part > length - at) return -EBADMSG;
        if (part > capacity - written) return -EMSGSIZE;
        memcpy(buffer + written, data + at, part);
        written += part;
        at += part;
    }
    // At most the 65,535 bytes of the record itself.
    buffer[0] = (uint8_t)((written - 2) >> 8);
    buffer[1] = (uint8_t)(written - 2);
    return (ssize_t)written;
}

static ssize_t append_texts(const uint8_t *message, int length, int limit, uint8_t *buffer, size_t capacity) {
    ns_msg handle;
    ssize_t written = 0;
    if (ns_initparse(message, length, &handle) < 0) return -EBADMSG;
    int count = ns_msg_count(handle, ns_s_an);
    for (int i = 0; i < count && limit > 0; i++) {
        ns_rr record;
        if (ns_parserr(&handle, ns_s_an, i, &record) < 0) return -EBADMSG;
        if (ns_rr_type(record) != ns_t_txt || ns_rr_class(record) != ns_c_in) continue;
        ssize_t result = append_text(&record, buffer + written, capacity - (size_t)written);
        if (result < 0) return result;
        written += result;
        limit--;
    }
    return written > 0 ? written : -ENODATA;
}

ssize_t clinux_dns_texts(
    const char *name, const struct clinux_name_server *server, int limit, uint8_t *buffer, size_t capacity) {
    struct __res_state state;
    memset(&state, 0, sizeof state);
    if (res_ninit(&state) < 0) return -EIO;
    // With the tries of each server, well below what callers wait in all.
    state.retrans = 2;
    state.retry = 2;
    if (server != NULL) {
        memset(&state.nsaddr_list[0], 0, sizeof state.nsaddr_list[0]);
        state.nsaddr_list[0].sin_family = AF_INET;
        state.nsaddr_list[0].sin_addr.s_addr = htonl(server->ipv4);
        state.nsaddr_list[0].sin_port = htons(server->port);
        state.nscount = 1;
    }
    ssize_t result = -ENOMEM;
    uint8_t *message = malloc(message_bytes);
    if (message != NULL) {
        int length = res_nquery(&state, name, ns_c_in, ns_t_txt, message, message_bytes);
        // What did not fit is said to be longer than it may be.
        if (length > message_bytes) result = -EMSGSIZE;
        else if (length < 0) result = explain(&state);
        else result = append_texts(message, length, limit, buffer, capacity);
        free(message);
    }
    res_nclose(&state);
    return result;
}
