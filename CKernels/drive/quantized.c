// Quantised weights as files hold them, ggml's blocks row after row, to the panels of ck_types.h. Codes are moved, never changed.
#include <string.h>

#include "../include/ck_drive.h"
#include "../include/ck_parallel.h"
#include "staging.h"

// What one block of a file holds: codes of 32 or 256 weights along a row, and scales of its parts.
typedef struct block {
  uint8_t d[2], low[2];  // f16, or bf16 for MXFP4
  uint8_t scales[16], lows[8];
  uint8_t codes[CK_SUPER_ROWS];
} block;

typedef struct packing {
  const ck_kernels *table;
  ck_dtype type;
  size_t n, k;
  const uint8_t *blocks;  // [n][k / unit] blocks
  uint8_t *packed;  // [n / NR] panels
} packing;

size_t ck_quantized_bytes(ck_dtype type, size_t elements) {
  if (type == CK_Q4_K || type == CK_Q5_K) return elements / CK_SUPER_ROWS * (type == CK_Q4_K ? 144 : 176);
  return ck_packed_bytes(type, elements);
}

// Low nibbles of `half` bytes, then their high ones.
static void split_nibbles(const uint8_t *bytes, size_t half, uint8_t *codes) {
  for (size_t i = 0; i < half; i++) codes[i] = bytes[i] & 15, codes[half + i] = bytes[i] >> 4;
}

// Bit i of `bits` as the fifth of the codes of the i-th 32 of `n`, a byte for each code of 32; or, of one 32, a bit for each.
static void add_fifths(const uint8_t *bits, size_t n, uint8_t *codes) {
  for (size_t i = 0; i < n; i++) {
    const int bit = n == 32 ? bits[i / 8] >> i % 8 : bits[i % 32] >> i / 32;
    codes[i] |= (uint8_t)((bit & 1) << 4);
  }
}

// ggml's block_q4_K: d, dmin, 8 pairs of 6-bit scales in 12 bytes, nibbles of 64 weights in each 32 bytes; and block_q5_K, which
// has fifth bits before the nibbles.
static void read_q4_k(const uint8_t *from, size_t fifths, block *b) {
  const uint8_t *s = from + 4;
  memcpy(b->d, from, 2), memcpy(b->low, from + 2, 2);
  for (size_t i = 0; i < 4; i++) {
    b->scales[i] = s[i] & 63, b->lows[i] = s[i + 4] & 63;
    b->scales[i + 4] = (uint8_t)((s[i + 8] & 15) | s[i] >> 6 << 4),
                  b->lows[i + 4] = (uint8_t)(s[i + 8] >> 4 | s[i + 4] >> 6 << 4);
  }
  for (size_t i = 0; i < 4; i++) split_nibbles(from + 16 + fifths + 32 * i, 32, b->codes + 64 * i);
  if (fifths) add_fifths(from + 16, CK_SUPER_ROWS, b->codes);
}

// ggml's block_q6_K: low nibbles [2][64], high pairs of bits [2][32], 16 scales, d.
static void read_q6_k(const uint8_t *from, block *b) {
  memcpy(b->scales, from + 192, 16), memcpy(b->d, from + 208, 2);
  for (size_t i = 0; i < 2; i++) {
    split_nibbles(from + 64 * i, 64, b->codes + 128 * i);
    for (size_t j = 0; j < 128; j++) b->codes[128 * i + j] |= (from[128 + 32 * i + j % 32] >> j / 32 * 2 & 3) << 4;
  }
}

static void read_block(ck_dtype type, const uint8_t *from, block *b) {
  if (type == CK_Q4_K || type == CK_Q5_K) {
    read_q4_k(from, type == CK_Q5_K ? 32 : 0, b);
  } else if (type == CK_Q6_K) {
    read_q6_k(from, b);
  } else if (type == CK_Q5_1) {  // d, m, fifth bits, nibbles
    memcpy(b->d, from, 2), memcpy(b->low, from + 2, 2);
    split_nibbles(from + 8, 16, b->codes);
    add_fifths(from + 4, 32, b->codes);
  } else {
    memcpy(b->d, from, 2);
    if (type == CK_Q8_0)
      memcpy(b->codes, from + 2, 32);
    else
      split_nibbles(from + 2, 16, b->codes);
  }
}

// Words of `bits` of 32 codes, from bit `shift` of each on: pair i of those that share a word at i * bits, 2 ck_crumb(i) or
// ck_fifth(i).
static void write_words(const uint8_t *codes, size_t bits, size_t shift, size_t nr, uint8_t *to) {
  const size_t pairs = 16 / bits;
  for (size_t word = 0; word < 16 / pairs; word++)
    for (size_t odd = 0; odd < 2; odd++) {
      unsigned value = 0;
      for (size_t i = 0; i < pairs; i++) {
        const size_t at = bits == 1 ? ck_fifth(i) : bits == 2 ? 2 * ck_crumb(i) : i * bits;
        value |= (codes[2 * (word * pairs + i) + odd] >> shift & ((1u << bits) - 1)) << at;
      }
      to[(word * nr * 2 + odd) * 2] = (uint8_t)value, to[(word * nr * 2 + odd) * 2 + 1] = (uint8_t)(value >> 8);
    }
}

// One block to column `column` of its block of a panel.
static void write_block(ck_dtype type, const block *b, size_t column, size_t nr, uint8_t *to) {
  memcpy(to + 2 * column, b->d, 2);
  to += 2 * nr;
  if (type == CK_Q8_0)
    for (size_t p = 0; p < 16; p++) memcpy(to + (p * nr + column) * 2, b->codes + 2 * p, 2);
  if (type == CK_Q4_0 || type == CK_MXFP4) write_words(b->codes, 4, 0, nr, to + 4 * column);
  if (ck_quant_lowered(type)) {
    memcpy(to + 2 * column, b->low, 2);
    to += 2 * nr;
  }
  if (type == CK_Q5_1) {
    write_words(b->codes, 4, 0, nr, to + 4 * column);
    write_words(b->codes, 1, 4, nr, to + 16 * nr + 4 * column);
  }
  if (type == CK_Q4_K || type == CK_Q5_K)
    for (size_t part = 0; part < 8; part++) {
      to[column] = b->scales[part], to[nr + column] = b->lows[part];
      write_words(b->codes + 32 * part, 4, 0, nr, to + 2 * nr + 4 * column);
      if (type == CK_Q5_K) write_words(b->codes + 32 * part, 1, 4, nr, to + 18 * nr + 4 * column);
      to += (type == CK_Q5_K ? 22 : 18) * nr;
    }
  if (type == CK_Q6_K)
    for (size_t part = 0; part < 8; part++, to += 26 * nr) {
      to[column] = b->scales[2 * part], to[nr + column] = b->scales[2 * part + 1];
      write_words(b->codes + 32 * part, 4, 0, nr, to + 2 * nr + 4 * column);
      write_words(b->codes + 32 * part, 2, 4, nr, to + 18 * nr + 4 * column);
    }
}

static void pack_panels(const void *context, size_t first, size_t last) {
  const packing *p = context;
  const size_t nr = p->table->gemm_nr, unit = ck_quant_unit(p->type), blocks = p->k / unit;
  const size_t bytes = ck_quantized_bytes(p->type, unit), panel_bytes = ck_packed_bytes(p->type, unit * nr);
  for (size_t panel = first; panel < last; panel++) {
    uint8_t *to = p->packed + panel * blocks * panel_bytes;
    const size_t columns = MIN(nr, p->n - panel * nr);
    if (columns < nr) memset(to, 0, blocks * panel_bytes);  // a scale of zero
    for (size_t i = 0; i < blocks; i++)
      for (size_t c = 0; c < columns; c++) {
        block b;
        read_block(p->type, p->blocks + ((panel * nr + c) * blocks + i) * bytes, &b);
        write_block(p->type, &b, c, nr, to + i * panel_bytes);
      }
  }
}

void ck_pack_quantized(const ck_kernels *table, ck_dtype type, size_t n, size_t k, const void *blocks, void *packed,
                       size_t threads) {
  const packing p = {table, type, n, k, blocks, packed};
  const size_t panels = pieces_of(n, table->gemm_nr);
  if (n && k) ck_parallel(panels, MAX((1 << 14) / (table->gemm_nr * k), 1), threads, pack_panels, &p);
}
