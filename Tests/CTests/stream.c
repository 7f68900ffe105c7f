// Panels of 16-bit weights, and of f32 for few rows.
#include <stdlib.h>

#include "definitions.h"
#include "products.h"

static const ck_dtype streamed[] = {CK_BF16, CK_F16, CK_F32};
static const char *const streamed_names[] = {"bf16", "f16", "f32"};

static void stream_case(test *t, size_t kind, size_t m, size_t n, size_t k, int place) {
  const ck_dtype type = streamed[kind];
  const size_t mr = t->table->gemm_mr, nr = t->table->gemm_nr;
  const int a_packed = type != CK_F32 && one_in(t, 3);
  situation(t, place, "%s m=%zu n=%zu k=%zu A packed=%d place=%d", streamed_names[kind], m, n, k, a_packed, place);
  side a = {.at = values(t, 0, m, k, 0)}, b = {.at = matrix(t, type, k, n, n, 1)};
  operand *c = values(t, 0, m, n, 0), *packed = matrix(t, type, 1, padded_to(n, nr) * k, 0, 1);
  pack(&b, 0, n, k, nr, packed, 0);
  c->written = 1;
  finish f = any_finish(t, 0, c, 1, n, 0);
  if (one_in(t, 2)) f.beta = one_in(t, 2) ? 1 : (float)random_in(t, -2, 2);
  ck_gemm_block block = block_of(c, m, n, k, &f);
  block.a = floats(a.at), block.a_rs = a.at->rs, block.a_packed = a_packed;
  if (a_packed) {
    operand *strips = vector(t, padded_to(m, mr) * k, 1);
    pack(&a, 1, m, k, mr, strips, 0);
    block.a = floats(strips);
  }
  block.b = packed->at, block.b_type = type, block.b_panel = nr * k,
  block.slice = a_packed || f.residual == c ? k + 1 : 1 + random_below(t, k + 1);
  if (type == CK_BF16) block.slice = padded_to(block.slice, 2);
  seal(t);
  t->table->f32_gemm_stream(&block);
  check_untouched(t);
  check_product(t, &(product){a, b, c, 0, 0, m, n, k}, &f);
  free((void *)f.held);
}

void check_unpack_b(test *t) {
  const size_t nr = t->table->gemm_nr;
  for (size_t type = CK_BF16; type <= CK_F16; type++)
    for (size_t k = 0; k < 10; k++) {
      situation(t, AT_END, "type=%zu k=%zu", type, k);
      const side b = {.at = matrix(t, (ck_dtype)type, k, nr, nr, 1)};
      operand *packed = matrix(t, (ck_dtype)type, 1, nr * k, 0, 1), *y = matrix(t, CK_F32, k, nr, nr, 1);
      pack(&b, 0, nr, k, nr, packed, 0);
      y->written = 1;
      seal(t);
      t->table->f32_gemm_unpack_b((ck_dtype)type, k, packed->at, floats(y));
      check_untouched(t);
      for (size_t i = 0; i < k * nr; i++) check_element(t, y, i / nr, i % nr, value(&b, i / nr, i % nr), 0);
    }
}

void check_gemm_stream(test *t) {
  const size_t nr = t->table->gemm_nr;
  for (size_t kind = 0; kind < COUNT(streamed); kind++)
    for (size_t m = 1; m <= (streamed[kind] == CK_F32 ? 16 : 17); m++)
      for (size_t n = 1; n <= 4 * nr + 1; n += n < nr ? 1 : 5) stream_case(t, kind, m, n, random_below(t, 20), any_place(t));
}
