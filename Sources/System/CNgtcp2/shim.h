#ifndef WARREN_CNGTCP2_H
#define WARREN_CNGTCP2_H
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <ngtcp2/ngtcp2.h>
#include <ngtcp2/ngtcp2_crypto.h>
#include <ngtcp2/ngtcp2_crypto_gnutls.h>
#include <stdbool.h>

// What Swift cannot see, or sees twice: casts in macros, and names that are both a macro and a constant.

static const uint32_t cngtcp2_version_1 = NGTCP2_PROTO_VER_V1;

// No tickets. One certificate and no list of issuers: a client shows it whatever the server asks for.
static inline unsigned cngtcp2_tls_flags(bool is_server) {
    return (is_server ? GNUTLS_SERVER : GNUTLS_CLIENT | GNUTLS_FORCE_CLIENT_CERT) | GNUTLS_NO_TICKETS |
           GNUTLS_NO_END_OF_EARLY_DATA;
}
#endif
