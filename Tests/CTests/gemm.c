// GEMM: the block kernel, the packing kernels and the driver.
#include <stdlib.h>

#include "definitions.h"
#include "products.h"

static void gemm_block_case(test *t, size_t m, size_t n, size_t k, int place) {
  const size_t mr = t->table->gemm_mr, nr = t->table->gemm_nr;
  const int exact = random_bits(t) & 1, b_in_place = n % (nr / 2) == 0 && random_bits(t) & 1,
            a_packed = !b_in_place && random_bits(t) & 1;
  situation(t, place, "m=%zu n=%zu k=%zu exact=%d A packed=%d B in place=%d place=%d", m, n, k, exact, a_packed, b_in_place,
            place);
  // The packed operands are whole; the plain ones only feed the packing.
  side a = {.at = values(t, 0, m, k, exact)}, b = {.at = values(t, 0, k, n, exact)};
  operand *c = values(t, 0, m, n, exact);
  c->written = 1;
  finish f = any_finish(t, 0, c, 1, n, exact);
  if (one_in(t, 2)) f.beta = one_in(t, 2) ? 1 : exact ? -1 : (float)random_in(t, -2, 2);
  ck_gemm_block block = block_of(c, m, n, k, &f);
  block.a = floats(a.at), block.a_rs = a.at->rs, block.a_packed = a_packed;
  if (a_packed) {
    operand *packed = vector(t, padded_to(m, mr) * k, 1);
    pack(&a, 1, m, k, mr, packed, 0);
    block.a = floats(packed);
  }
  if (b_in_place) {
    block.b = floats(b.at), block.b_ks = b.at->rs, block.b_panel = nr;
  } else {
    operand *packed = vector(t, padded_to(n, nr) * k, 1);
    pack(&b, 0, n, k, nr, packed, 0);
    block.b = floats(packed), block.b_panel = nr * k;
  }
  seal(t);
  t->table->f32_gemm_block(&block);
  check_untouched(t);
  check_product(t, &(product){a, b, c, 0, 0, m, n, k}, &f);
  free((void *)f.held);
}

void check_gemm_block(test *t) {
  const size_t mr = t->table->gemm_mr, nr = t->table->gemm_nr, depths[] = {0, 1, 2, 3, 4, 5, 17};
  for (size_t m = 1; m <= 2 * mr + 1; m++)
    for (size_t n = 1; n <= 2 * nr + 1; n++) {
      const size_t k = depths[random_below(t, COUNT(depths))];
      gemm_block_case(t, m, n, k, random_bits(t) & 1 ? AT_END : (int)random_below(t, PLACES - 1));
      if (n % nr == 0) gemm_block_case(t, m, n, k, AT_END);
    }
  gemm_block_case(t, 2 * mr + 3, 5 * nr + 3, 131, AT_END);
  gemm_block_case(t, 1, 7 * nr, 259, AT_END);
}

static void pack_case(test *t, int rows, size_t count, size_t k, int transposed, int place) {
  const size_t unit = rows ? t->table->gemm_mr : t->table->gemm_nr;
  situation(t, place, "%s=%zu k=%zu transposed=%d place=%d", rows ? "m" : "n", count, k, transposed, place);
  const int tall = rows != transposed;  // memory rows run along `count`
  operand *source =
      tall ? matrix(t, CK_F32, count, k, stride_for(t, k), 2) : matrix(t, CK_F32, k, count, stride_for(t, count), 2);
  operand *packed = vector(t, padded_to(count, unit) * k, 1), *expected = vector(t, padded_to(count, unit) * k, 1);
  pack(&(side){.at = source, .transposed = transposed}, rows, count, k, unit, expected, 0);
  packed->written = 1;
  seal(t);
  const size_t along = tall ? source->rs : 1, deep = tall ? 1 : source->rs;
  if (rows)
    t->table->f32_gemm_pack_a(count, k, floats(source), along, deep, floats(packed));
  else
    t->table->f32_gemm_pack_b(count, k, floats(source), deep, along, floats(packed));
  check_untouched(t);
  check_bits(t, packed, expected->at, "packed");
}

static void pack_cases(test *t, int rows) {
  const size_t unit = rows ? t->table->gemm_mr : t->table->gemm_nr;
  for (size_t count = 1; count <= 2 * unit + 1; count++)
    for (size_t k = 0; k <= 19; k++)
      for (int transposed = 0; transposed < 2; transposed++) {
        pack_case(t, rows, count, k, transposed, AT_END);
        pack_case(t, rows, count, k, transposed, (int)random_below(t, PLACES - 1));
      }
}
void check_pack_a(test *t) { pack_cases(t, 1); }
void check_pack_b(test *t) { pack_cases(t, 0); }

static void pack_driver_case(test *t, const void *shape, size_t threads) {
  const size_t n = *(const size_t *)shape, k = 301, nr = t->table->gemm_nr, transposed = one_in(t, 2);
  const ck_dtype type = any_type(t);
  situation(t, AT_END, "n=%zu k=%zu type=%d transposed=%zu threads=%zu", n, k, type, transposed, threads);
  const size_t across = transposed ? k : n;
  side b = {.at = matrix(t, type, transposed ? n : k, across, stride_for(t, across), 2), .transposed = transposed};
  operand *packed = matrix(t, type, 1, ck_f32_packed_size(t->table, n, k), 0, 1);
  operand *expected = matrix(t, type, 1, padded_to(n, nr) * k, 0, 1);
  pack(&b, 0, n, k, nr, expected, 0);
  packed->written = 1;
  seal(t);
  ck_pack_b(t->table, type, n, k, b.at->at, transposed ? 1 : b.at->rs, transposed ? b.at->rs : 1, packed->at, threads);
  check_untouched(t);
  if (packed->n != expected->n) fail(t, "%zu elements instead of %zu", packed->n, expected->n);
  check_bits(t, packed, expected->at, "packed");
}

void check_pack_b_driver(test *t) {
  for (size_t repeat = 0; repeat < 4; repeat++)
    for (size_t n = 1; n < 300; n += 97) check_threads(t, pack_driver_case, &n);
}

// Entries of a batch lie below one another. Bits of the style: A, B transposed, B packed, integers; then the epilogue: none, with
// a residual of its own, with C as the residual. `typed`: each operand in a type of its own. `tiles`: on a table that has them;
// 2: of bf16.
typedef struct gemm_shape {
  size_t batch, m, n, k, style, typed, tiles;
} gemm_shape;

static void gemm_case(test *t, const void *shape, size_t threads) {
  const gemm_shape s = *(const gemm_shape *)shape;
  const size_t batch = s.batch, m = s.m, n = s.n, k = s.k;
  const int ta = s.style & 1, tb = s.style >> 1 & 1, packs = s.style >> 2 & 1, exact = s.style >> 3 & 1;
  const size_t finishes = s.style >> 4;
  situation(t, AT_END, "batch=%zu m=%zu n=%zu k=%zu style=%zu typed=%zu tiles=%zu threads=%zu", batch, m, n, k, s.style, s.typed,
            s.tiles, threads);
  ck_kernels table = *t->table;
  if (s.tiles && !table.tiles) table.tiles = CK_TILES_UNIT;
  side a = {.transposed = ta}, b = {.transposed = tb};
  const size_t a_rows = ta ? k : m, b_rows = tb ? n : k;
  a.at = s.tiles > 1 ? matrix(t, CK_BF16, m, k, k, 2) : values(t, s.typed, batch * a_rows, ta ? m : k, exact);
  b.at = s.tiles > 1 ? matrix(t, CK_BF16, b_rows, tb ? k : n, tb ? k : n, 2)
                     : values(t, s.typed, (packs ? 1 : batch) * b_rows, tb ? k : n, exact);
  operand *c = values(t, s.typed, batch * m, n, exact);
  c->written = 1;
  finish f = fixed_finish(t, finishes, s.typed, c, exact);
  ck_gemm call = gemm_call(t, &a, &b, c, batch, k, packs, &f);
  if (s.tiles > 1 && packs && one_in(t, 2)) call.packed_range = ck_packed_range(&table, n, k, call.packed, 1);
  f.held = values_of(c);
  seal(t);
  if (ck_f32_gemm(&table, &call, threads)) fail(t, "no scratch");
  check_untouched(t);
  for (size_t z = 0; threads == 1 && z < batch; z++) {
    a.first = z * a_rows, b.first = packs ? 0 : z * b_rows;
    check_product(t, &(product){a, b, c, z * m, 0, m, n, k}, &f);
  }
  free((void *)f.held);
}

void check_gemm(test *t) {
  // Batches; one row; B in place; K in slices; A in several blocks; A packed.
  static const size_t sizes[][4] = {{1, 1, 1, 1},    {1, 1, 33, 65},   {2, 3, 5, 0},    {1, 7, 48, 19}, {3, 13, 31, 17},
                                    {1, 3, 70, 395}, {1, 19, 37, 800}, {9, 24, 40, 33}, {1, 345, 9, 7}, {1, 25, 780, 6}};
  for (size_t k = 0; k < COUNT(sizes); k++)
    for (size_t style = 0; style < 48; style++)
      for (size_t typed = 0; typed <= (style % 3 == 0); typed++) {
        const gemm_shape shape = {sizes[k][0], sizes[k][1], sizes[k][2], sizes[k][3], style, typed, 0};
        check_threads(t, gemm_case, &shape);
      }
}

void check_long_gemm(test *t) {
  // Pieces of K shared out alone, with the batch, with the columns, and one after the other by all threads.
  static const size_t sizes[][4] = {{1, 1, 33, 12288}, {2, 3, 40, 8710}, {1, 17, 33, 8450}, {1, 200, 1, 8200}};
  for (size_t k = 0; k < COUNT(sizes); k++)
    for (size_t style = k; style < 48; style += 7)
      for (size_t kind = 0; kind < 3; kind++) {
        const gemm_shape shape = {sizes[k][0], sizes[k][1], sizes[k][2], sizes[k][3], style, kind > 0, kind > 1};
        check_threads(t, gemm_case, &shape);
      }
  // In tiles: B as it lies, its transpose and packed, with and without its range.
  static const size_t styles[] = {16, 2, 4, 20, 36, 6, 22, 38};
  for (size_t k = 0; k < COUNT(styles); k++)
    check_threads(t, gemm_case, &(gemm_shape){1, 18 + k % 2 * 14, 40, 8450, styles[k], 0, 2});
}
