// What every body may use besides the vector vocabulary. Included before any target attribute is pushed.
#ifndef CK_BODY_H
#define CK_BODY_H

// Every operation rounds, whatever the compiler fuses by default: random numbers have the same bits everywhere. Before the
// intrinsics, which are functions of `*` and `+`.
#pragma STDC FP_CONTRACT OFF

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../include/ck_kernels.h"
#include "../include/ck_parallel.h"

#define CK_INLINE static inline __attribute__((always_inline))
#define CK_MIN(a, b) ((a) < (b) ? (a) : (b))

CK_INLINE uint32_t ck_bits_(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
CK_INLINE float ck_float_(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// The tables, one accessor per ISA; NULL where the build has no code for it.
const ck_kernels *ck_table__scalar(void);
const ck_kernels *ck_table__neon(void);
const ck_kernels *ck_table__neondot(void);
const ck_kernels *ck_table__avx2(void);
const ck_kernels *ck_table__avxvnni(void);
const ck_kernels *ck_table__avx512(void);
const ck_kernels *ck_table__avx512vnni(void);
const ck_kernels *ck_table__avx512bf16(void);
const ck_kernels *ck_table__amx(void);

#endif
