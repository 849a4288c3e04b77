#pragma once

#include <stddef.h>
#include <stdint.h>

/// Runs libFuzzer with a program's arguments until it finds a crash or its time is over. Part of the fuzzer's runtime.
///
/// Spec: llvm.org/docs/LibFuzzer.html § Using libFuzzer as a library.
int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*test)(const uint8_t *data, size_t size));
