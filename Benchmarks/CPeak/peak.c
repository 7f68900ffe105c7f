// Vectors of the compiler's own, so that one body serves every width and no intrinsics are needed.
#include "include/CPeak.h"

#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

// More chains than latency times throughput of any core so far (5 x 2, 4 x 4), few enough for the registers.
#define BODY(suffix, lanes, chains)                                                                \
  typedef float vector_##suffix __attribute__((vector_size(4 * lanes)));                           \
  static float fma_##suffix(size_t iterations) {                                                   \
    volatile float near_one = 0.9999f, small = 0.0001f;                                            \
    const vector_##suffix x = near_one - (vector_##suffix){0}, y = small - (vector_##suffix){0};   \
    vector_##suffix sum[chains];                                                                   \
    _Pragma("clang loop unroll(full)") for (int j = 0; j < chains; j++) sum[j] = y * (float)j;     \
    for (size_t i = 0; i < iterations; i++) {                                                      \
      _Pragma("clang loop unroll(full)") for (int j = 0; j < chains; j++) sum[j] = sum[j] * x + y; \
    }                                                                                              \
    float total = 0;                                                                               \
    _Pragma("clang loop unroll(full)") for (int j = 0; j < chains; j++) total += sum[j][0];        \
    return total;                                                                                  \
  }                                                                                                \
  static float read_##suffix(const float *floats, size_t count) {                                  \
    const vector_##suffix *v = (const vector_##suffix *)floats;                                    \
    vector_##suffix sum[8] = {0};                                                                  \
    for (size_t i = 0; i < count / lanes; i += 8) {                                                \
      _Pragma("clang loop unroll(full)") for (int j = 0; j < 8; j++) sum[j] += v[i + j];           \
    }                                                                                              \
    _Pragma("clang loop unroll(full)") for (int j = 1; j < 8; j++) sum[0] += sum[j];               \
    float total = 0;                                                                               \
    for (int lane = 0; lane < lanes; lane++) total += sum[0][lane];                                \
    return total;                                                                                  \
  }                                                                                                \
  static void copy_##suffix(float *to, const float *from, size_t count, int streams) {             \
    const vector_##suffix *x = (const vector_##suffix *)from;                                      \
    vector_##suffix *y = (vector_##suffix *)to;                                                    \
    if (streams)                                                                                   \
      for (size_t i = 0; i < count / lanes; i++) __builtin_nontemporal_store(x[i], y + i);         \
    else                                                                                           \
      for (size_t i = 0; i < count / lanes; i++) y[i] = x[i];                                      \
  }

#if defined(__aarch64__)
#define NARROW_CHAINS 24
#else
#define NARROW_CHAINS 12
#endif
BODY(baseline, 4, NARROW_CHAINS)

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
BODY(avx2, 8, 12)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma"))), apply_to = function)
BODY(avx512, 16, 24)
#pragma clang attribute pop
#endif

size_t cpeak_fma_flops(cpeak_width width) {
  switch (width) {
    case CPEAK_BASELINE:
      return 2 * 4 * NARROW_CHAINS;
#if defined(__x86_64__)
    case CPEAK_AVX2:
      return 2 * 8 * 12;
    case CPEAK_AVX512:
      return 2 * 16 * 24;
#endif
    default:
      return 0;
  }
}

float cpeak_fma(cpeak_width width, size_t iterations) {
  switch (width) {
    case CPEAK_BASELINE:
      return fma_baseline(iterations);
#if defined(__x86_64__)
    case CPEAK_AVX2:
      return fma_avx2(iterations);
    case CPEAK_AVX512:
      return fma_avx512(iterations);
#endif
    default:
      return 0;
  }
}

float cpeak_read(cpeak_width width, const float *floats, size_t count) {
  switch (width) {
#if defined(__x86_64__)
    case CPEAK_AVX2:
      return read_avx2(floats, count);
    case CPEAK_AVX512:
      return read_avx512(floats, count);
#endif
    default:
      return read_baseline(floats, count);
  }
}

void cpeak_copy(cpeak_width width, float *to, const float *from, size_t count, int streams) {
  switch (width) {
#if defined(__x86_64__)
    case CPEAK_AVX2:
      copy_avx2(to, from, count, streams);
      break;
    case CPEAK_AVX512:
      copy_avx512(to, from, count, streams);
      break;
#endif
    default:
      copy_baseline(to, from, count, streams);
  }
#if defined(__x86_64__)
  if (streams) __builtin_ia32_sfence();
#endif
}

void cpeak_trim(void) {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}
