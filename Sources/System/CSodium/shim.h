#ifndef WARREN_CSODIUM_H
#define WARREN_CSODIUM_H
#include <sodium/core.h>
#include <sodium/crypto_stream_salsa20.h>
#include <sodium/crypto_stream_xsalsa20.h>
#include <sodium/randombytes.h>
#endif
