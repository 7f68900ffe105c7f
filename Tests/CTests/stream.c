// Panels of narrow weights: few rows times them as they are, and blocks made floats.
#include <stdlib.h>
#include <string.h>

#include "definitions.h"
#include "products.h"

static const ck_dtype narrow[] = {CK_BF16, CK_F16, CK_Q8_0, CK_Q4_0};
static const char *const narrow_names[] = {"bf16", "f16", "q8_0", "q4_0"};

// Random panels of Q8_0 or Q4_0, and what they stand for in `b` [k, n]; columns beyond n hold anything.
static operand *random_blocks(test *t, ck_dtype type, size_t n, size_t k, operand *b) {
  const size_t nr = t->table->gemm_nr, block = ck_packed_bytes(type, CK_QUANT_ROWS * nr);
  operand *packed = matrix(t, CK_F16, 1, ck_packed_bytes(type, padded_to(n, nr) * k) / 2, 0, 1);
  for (size_t j = 0; j < padded_to(n, nr); j++)
    for (size_t p = 0; p < k; p++) {
      unsigned char *at = (unsigned char *)packed->at + (j / nr * (k / CK_QUANT_ROWS) + p / CK_QUANT_ROWS) * block;
      const size_t row = p % CK_QUANT_ROWS;
      double q;
      if (row == 0) {
        const uint16_t scale = (uint16_t)(random_bits(t) % 0x4000 | (random_bits(t) & 1) << 15);  // below 2, denormals too
        memcpy(at + 2 * (j % nr), &scale, sizeof scale);
      }
      uint16_t scale;
      memcpy(&scale, at + 2 * (j % nr), sizeof scale);
      if (type == CK_Q8_0) {
        const int8_t code = (int8_t)(random_bits(t) & 0xFF);
        memcpy(at + 2 * nr + row * nr + j % nr, &code, sizeof code);
        q = code;
      } else {
        const uint32_t code = random_bits(t) & 15;
        unsigned char *word = at + 2 * nr + (row % 4 * nr + j % nr) * 4;
        uint32_t bits;
        memcpy(&bits, word, sizeof bits);
        bits = (bits & ~(15u << 4 * (row / 4))) | code << 4 * (row / 4);
        memcpy(word, &bits, sizeof bits);
        q = (double)code - 8;
      }
      const double weight = decoded(CK_F16, scale) * q;
      if (j < n) set_element(b, p, j, type == CK_Q4_0 ? weight + 0.0 : weight);  // scale q - 8 scale is never -0
    }
  return packed;
}

static void stream_case(test *t, size_t kind, size_t m, size_t n, size_t k, int place) {
  const ck_dtype type = narrow[kind];
  const size_t nr = t->table->gemm_nr;
  situation(t, place, "%s m=%zu n=%zu k=%zu place=%d", narrow_names[kind], m, n, k, place);
  side a = {.at = values(t, 0, m, k, 0)}, b = {.at = matrix(t, type < CK_DTYPE_COUNT ? type : CK_F32, k, n, n, 1)};
  operand *c = values(t, 0, m, n, 0), *packed;
  if (type < CK_DTYPE_COUNT) {
    packed = matrix(t, type, 1, padded_to(n, nr) * k, 0, 1);
    pack(&b, 0, n, k, nr, packed, 0);
  } else {
    packed = random_blocks(t, type, n, k, b.at);
  }
  c->written = 1;
  finish f = any_finish(t, 0, c, 1, n, 0);
  if (one_in(t, 2)) f.beta = one_in(t, 2) ? 1 : (float)random_in(t, -2, 2);
  ck_gemm_block block = {.m = m, .n = n, .k = k, .c = floats(c), .c_rs = c->rs, .alpha = (float)f.alpha, .beta = (float)f.beta};
  block.a = floats(a.at), block.a_rs = a.at->rs;
  block.b = packed->at, block.b_type = type, block.b_panel = nr * k;
  block.bias = floats(f.bias), block.residual = floats(f.residual), block.activation = f.activation;
  block.residual_rs = f.residual ? f.residual->rs : 0;
  seal(t);
  t->table->f32_gemm_stream(&block);
  check_untouched(t);
  check_product(t, &(product){a, b, c, 0, 0, m, n, k}, &f);
  free((void *)f.held);
}

void check_gemm_stream(test *t) {
  const size_t nr = t->table->gemm_nr;
  for (size_t kind = 0; kind < COUNT(narrow); kind++)
    for (size_t m = 1; m <= 17; m++)
      for (size_t n = 1; n <= 4 * nr + 1; n += n < nr ? 1 : 5) {
        const size_t k = narrow[kind] < CK_DTYPE_COUNT ? random_below(t, 20) : CK_QUANT_ROWS * random_below(t, 4);
        stream_case(t, kind, m, n, k, any_place(t));
      }
}

void check_unpack(test *t) {
  const size_t nr = t->table->gemm_nr;
  for (size_t kind = 2; kind < COUNT(narrow); kind++)
    for (size_t k = 0; k <= 4 * CK_QUANT_ROWS; k += CK_QUANT_ROWS)
      for (int place = AT_END; place < PLACES - 1; place++) {
        situation(t, place, "%s k=%zu place=%d", narrow_names[kind], k, place);
        operand *expected = matrix(t, CK_F32, k, nr, nr, 1), *y = matrix(t, CK_F32, k, nr, nr, 1);
        operand *packed = random_blocks(t, narrow[kind], nr, k, expected);
        y->written = 1;
        seal(t);
        t->table->f32_unpack(narrow[kind], k, packed->at, floats(y));
        check_untouched(t);
        check_bits(t, y, expected->at, "unpacked");
      }
}
