#ifndef WARREN_COPENSSL_H
#define WARREN_COPENSSL_H
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <openssl/param_build.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

// What Swift cannot see: function-like macros.

// No tickets; the server's choice of cipher, but ChaCha20 for clients that put it first.
static inline uint64_t copenssl_tls_options(void) {
    return SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA | SSL_OP_NO_COMPRESSION;
}

// For the TLS of the web: versions that differ in what they allow after the handshake behave alike.
static inline uint64_t copenssl_web_options(void) {
    return SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA | SSL_OP_NO_COMPRESSION
        | SSL_OP_NO_RENEGOTIATION;
}
#endif
