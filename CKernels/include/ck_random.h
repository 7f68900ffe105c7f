// Counter-based random numbers: Philox 4x32-10 (Salmon et al., SC'11). Element i depends on seed, stream and offset + i alone,
// and has the same bits on every instruction set: the transforms round after every operation and fuse none.
#ifndef CK_RANDOM_H
#define CK_RANDOM_H

#include "ck_types.h"

// What becomes of the words w0 ... w3 of a block; the constants are in body/random.h.
typedef enum ck_distribution {
  CK_RANDOM_BITS = 0,     // the words as they are, where the floats would be
  CK_RANDOM_UNIFORM = 1,  // (w >> 8) 2^-24, in [0, 1)
  CK_RANDOM_NORMAL = 2,   // Box-Muller: words 0 and 1 make elements 0 and 1, words 2 and 3 the others
  CK_RANDOM_GUMBEL = 3    // -log(-log(((w >> 9) + 1/2) 2^-23))
} ck_distribution;

typedef struct ck_random {
  ck_distribution distribution;
  uint64_t seed;    // the key, low word first
  uint64_t stream;  // the counter's high words; its low words are (offset + i) / 4
  uint64_t offset;
  size_t rows, n;   // element (r, j) is number offset + r n + j, modulo 2^64
  void *y;          // [rows, n]
  size_t y_rs;
  ck_dtype y_type;  // f32 where the bits themselves are asked for
} ck_random;
void ck_random_fill(const ck_kernels *table, const ck_random *call, size_t threads);

#endif
