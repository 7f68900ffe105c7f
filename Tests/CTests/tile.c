// GEMM in tiles of bf16 pieces: packing, the block kernel, the driver. Where there is no matrix unit, one is imitated; the bits
// of every instruction set are those of the imitation on the scalar one.
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "definitions.h"
#include "products.h"

enum { EDGE = CK_TILE_EDGE };
static const size_t edges[] = {1, 15, 16, 17, 31, 32, 33, 47, 61, 67};

// Magnitudes of every size, denormals and zeros too: finite with exponents from `low` up to `high`.
static double any_size(test *t, int low, int high) {
  if (one_in(t, 16)) return 0;
  const double size = ldexp(random_in(t, 1, 2), low + (int)random_below(t, (size_t)(high - low + 1)));
  return one_in(t, 2) ? size : -size;
}

static operand *sizes(test *t, ck_dtype type, size_t rows, size_t n, int low, int high) {
  operand *o = matrix(t, type, rows, n, rows > 1 ? stride_for(t, n) : n, 1);
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < n; j++) set_element(o, i, j, any_size(t, low, high));
  return o;
}

// Row or column `i` of `side`, element k.
static double at_of(const side *s, int rows, size_t i, size_t k) { return rows ? value(s, i, k) : value(s, k, i); }

static void check_range(test *t, const side *x, int rows, size_t first, size_t count, size_t k, ck_tile_range got) {
  double least = INFINITY, most = 0;
  int finite = 1;
  for (size_t i = first; i < MIN(first + EDGE, count); i++)
    for (size_t p = 0; p < k; p++) {
      const double size = fabs(at_of(x, rows, i, p));
      finite &= isfinite(size) != 0;
      if (size > 0) least = fmin(least, size);
      most = fmax(most, size);
    }
  if (!finite) most = INFINITY, least = got.least;
  if (got.least != least || got.most != most)
    fail(t, "the range of %zu is %g ... %g, not %g ... %g", first, got.least, got.most, least, most);
}

// The tiles of `count` rows or columns against pieces cut here: piece q is the nearest bf16 to what is left. No pieces, no tiles.
static void check_tiles(test *t, const side *x, int rows, size_t count, size_t k, size_t pieces, const operand *tiles) {
  const size_t steps = ck_tile_steps(k);
  for (size_t i = 0; i < padded_to(count, rows ? EDGE / 2 : EDGE); i++)
    for (size_t p = 0; p < steps * CK_TILE_STEP; p++) {
      double left = i < count && p < k ? at_of(x, rows, i, p) : 0;
      for (size_t q = 0; q < pieces && isfinite(left); q++) {
        const size_t edge = rows ? EDGE / 2 : EDGE, deep = p % CK_TILE_STEP;
        const size_t tile = (i / edge * steps + p / CK_TILE_STEP) * pieces + q;
        const size_t within = rows ? i % edge * CK_TILE_STEP + deep : (deep / 2 * edge + i % edge) * 2 + deep % 2;
        const double piece = rounded(CK_BF16, left), got = element(tiles, 0, tile * edge * CK_TILE_STEP + within);
        if (got != piece) {
          fail(t, "piece %zu of [%zu, %zu] is %a, not %a", q, i, p, got, piece);
          return;
        }
        left -= piece;
      }
    }
}

// `panels`: B in panels of gemm_nr columns instead of rows.
static void tile_pack_case(test *t, int rows, int panels, ck_dtype type, size_t count, size_t k, size_t pieces, int place) {
  const size_t nr = t->table->gemm_nr;
  situation(t, place, "%s%s=%zu k=%zu type=%d pieces=%zu place=%d", panels ? "panels " : "", rows ? "m" : "n", count, k, type,
            pieces, place);
  side x = {.at = rows ? sizes(t, type, count, k, -140, 120) : sizes(t, type, k, count, -140, 120)};
  if (one_in(t, 8) && k) set_element(x.at, rows ? count - 1 : k - 1, 0, one_in(t, 2) ? INFINITY : NAN);
  ck_tile_pack call = {.count = count, .k = k, .type = type, .x = x.at->at, .rs = x.at->rs, .pieces = pieces};
  if (panels) {
    operand *packed = matrix(t, type, 1, padded_to(count, nr) * k, 0, 1);
    pack(&x, 0, count, k, nr, packed, 0);
    call.x = packed->at, call.panel = nr * k;
  }
  operand *tiles = matrix(t, CK_BF16, 1, padded_to(count, EDGE) / EDGE * ck_tile_panel(k, pieces), 0, 1);
  operand *ranges = vector(t, padded_to(count, EDGE) / EDGE * 2, 1);
  call.tiles = tiles->at, call.ranges = ranges->at;
  tiles->written = ranges->written = 1;
  seal(t);
  if (rows)
    t->table->bf16_tile_pack_a(&call);
  else
    t->table->bf16_tile_pack_b(&call);
  check_untouched(t);
  check_tiles(t, &x, rows, count, k, pieces, tiles);
  for (size_t i = 0; i < count; i += EDGE) check_range(t, &x, rows, i, count, k, call.ranges[i / EDGE]);
}

static void tile_pack_cases(test *t, int rows) {
  for (size_t c = 0; c < COUNT(edges); c++)
    for (size_t d = 0; d <= COUNT(edges); d++)
      for (size_t type = 0; type < CK_DTYPE_COUNT; type++) {
        const size_t k = d ? edges[d - 1] : 0, pieces = random_below(t, CK_TILE_MOST_PIECES + 1);
        tile_pack_case(t, rows, 0, (ck_dtype)type, edges[c], k, rows && !pieces ? 1 : pieces, any_place(t));
        if (!rows && k) tile_pack_case(t, 0, 1, (ck_dtype)type, edges[c], k, pieces, AT_END);
      }
}
void check_tile_pack_a(test *t) { tile_pack_cases(t, 1); }
void check_tile_pack_b(test *t) { tile_pack_cases(t, 0); }

// A call on operands as tiles; in some cases A where it lies, and B as weights are packed. `ranges` of B are thrown away.
typedef struct tiled {
  operand *a, *b;
  ck_tile_block call;
} tiled;

static tiled tiles_of(test *t, const operand *a, const operand *b, size_t order) {
  tiled x = {.call = {.a_pieces = ck_tile_pieces(a->type, order), .b_pieces = ck_tile_pieces(b->type, order), .order = order}};
  const size_t m = a->rows, n = b->n, k = a->n;
  x.a = matrix(t, CK_BF16, 1, padded_to(m, EDGE) / EDGE * ck_tile_panel(k, x.call.a_pieces), 0, 1);
  x.b = matrix(t, CK_BF16, 1, padded_to(n, EDGE) / EDGE * ck_tile_panel(k, x.call.b_pieces), 0, 1);
  ck_tile_range ranges[8];
  ck_tile_pack of = {m, k, a->type, a->at, a->rs, .pieces = x.call.a_pieces, .tiles = x.a->at, .ranges = ranges};
  t->table->bf16_tile_pack_a(&of);
  of = (ck_tile_pack){n, k, b->type, b->at, b->rs, .pieces = x.call.b_pieces, .tiles = x.b->at, .ranges = ranges};
  t->table->bf16_tile_pack_b(&of);
  x.call.a = x.a->at, x.call.b = x.b->at, x.call.b_panel = ck_tile_panel(k, x.call.b_pieces);
  static const uint16_t *at[8];
  const size_t steps = k / CK_TILE_STEP, tiles = m / 16 * steps;
  if (a->type == CK_BF16 && m % 16 == 0 && k % CK_TILE_STEP == 0 && tiles <= COUNT(at) && one_in(t, 2)) {
    for (size_t i = 0; i < tiles; i++) at[i] = (const uint16_t *)a->at + i / steps * 16 * a->rs + i % steps * CK_TILE_STEP;
    ck_tile_range placed;
    of = (ck_tile_pack){.count = m, .k = k, .type = CK_BF16, .rs = a->rs, .at = at, .ranges = &placed};
    t->table->bf16_tile_pack_a(&of);
    check_range(t, &(side){.at = (operand *)a}, 1, 0, m, k, placed);
    x.call.a = 0, x.call.a_at = at, x.call.a_rs = a->rs;
  }
  if (b->type == CK_BF16 && one_in(t, 2)) {
    operand *packed = matrix(t, CK_BF16, 1, padded_to(n, EDGE) * k, 0, 1);
    pack(&(side){.at = (operand *)b}, 0, n, k, EDGE, packed, 0);
    x.call.b = packed->at, x.call.b_panel = EDGE * k, x.call.b_packed = 1, x.call.ahead = one_in(t, 2);
  }
  return x;
}

static void tile_block_case(test *t, size_t m, size_t n, size_t k, ck_dtype a_type, ck_dtype b_type, size_t order, int place) {
  const int exact = one_in(t, 2);
  situation(t, place, "m=%zu n=%zu k=%zu types=%d %d order=%zu exact=%d place=%d", m, n, k, a_type, b_type, order, exact, place);
  side a = {.at = exact ? integers(t, a_type, m, k, stride_for(t, k)) : matrix(t, a_type, m, k, stride_for(t, k), 2)};
  side b = {.at = exact ? integers(t, b_type, k, n, stride_for(t, n)) : matrix(t, b_type, k, n, stride_for(t, n), 2)};
  operand *c = values(t, 0, m, n, exact);
  c->written = 1;
  finish f = any_finish(t, 0, c, 1, n, exact);
  if (one_in(t, 2)) f.beta = one_in(t, 2) ? 1 : exact ? -1 : (float)random_in(t, -2, 2);
  ck_gemm_block block = block_of(c, m, n, k, &f);
  tiled x = tiles_of(t, a.at, b.at, order);
  x.call.block = &block;
  seal(t);
  t->table->f32_tile_block(&x.call);
  check_untouched(t);
  for (size_t i = 0; i < m; i++)
    for (size_t j = 0; j < n; j++) {
      double sum = 0, magnitude = 0;
      for (size_t p = 0; p < k; p++) {
        const double term = value(&a, i, p) * value(&b, p, j);
        sum += term, magnitude += fabs(term);
      }
      check_finished(t, c, i, j, sum, magnitude, (double)k + 3 + pieces_drop(order, k), &f);
    }
  free((void *)f.held);
}

// A product of AVX512-BF16 as Intel's manual has it, volume 2: the second element of each pair first, each product fused with its
// sum; denormals count as 0, on the way in and on the way out.
static double dots_of(const operand *a, const operand *b, size_t i, size_t j, size_t k) {
  float sum = 0;
  for (size_t pair = 0; pair < padded_to(k, 2) / 2; pair++)
    for (size_t q = 2 * pair + 1; q + 1 > 2 * pair; q--) {
      if (q >= k) continue;
      const float x = (float)rounded(CK_BF16, element(a, i, q)), y = (float)rounded(CK_BF16, element(b, q, j));
      if (fabsf(x) < FLT_MIN || fabsf(y) < FLT_MIN) continue;
      sum = fmaf(x, y, sum);
      if (fabsf(sum) < FLT_MIN) sum = 0;
    }
  return sum;
}

// Values of every size, which tiles flush and overflow as they will: the bits of the scalar imitation, or of dots_of.
static void tile_bits_case(test *t, size_t m, size_t n, size_t k, size_t order, int low, int high) {
  situation(t, AT_END, "bits m=%zu n=%zu k=%zu order=%zu 2^%d ... 2^%d", m, n, k, order, low, high);
  const ck_kernels *scalar = ck_kernels_for(CK_ISA_SCALAR);
  operand *a = sizes(t, CK_F32, m, k, low, high), *b = sizes(t, CK_F32, k, n, low, high);
  tiled x = tiles_of(t, a, b, order);
  operand *c = matrix(t, CK_F32, m, n, n, 1), *expected = matrix(t, CK_F32, m, n, n, 1);
  ck_gemm_block block = {.m = m, .n = n, .k = k, .c = floats(c), .c_rs = n, .alpha = 1};
  x.call.block = &block;
  t->table->f32_tile_block(&x.call);
  block.c = floats(expected);
  scalar->f32_tile_block(&x.call);
  for (size_t i = 0; i < m; i++)
    for (size_t j = 0; j < n; j++) {
      const int dots = order == 0 && t->table->tiles == CK_TILES_DOT;
      const double got = element(c, i, j), wanted = dots ? dots_of(a, b, i, j, k) : element(expected, i, j);
      if (got != wanted && !(isnan(got) && isnan(wanted))) fail(t, "[%zu, %zu] is %a, not %a", i, j, got, wanted);
    }
}

void check_tile_block(test *t) {
  for (size_t m = 0; m < 6; m++)
    for (size_t n = 0; n < COUNT(edges); n++)
      for (size_t order = 0; order <= 2; order++) {
        const size_t k = one_in(t, 8) ? 0 : edges[random_below(t, COUNT(edges))];
        tile_block_case(t, edges[m], edges[n], k, any_type(t), any_type(t), order, any_place(t));
      }
  for (size_t order = 0; order <= 2; order++)
    for (size_t type = 0; type < CK_DTYPE_COUNT * CK_DTYPE_COUNT; type++)
      tile_block_case(t, EDGE - type % 2 * 17, 64, 157, (ck_dtype)(type / CK_DTYPE_COUNT), (ck_dtype)(type % CK_DTYPE_COUNT),
                      order, AT_END);
  for (size_t m = 16; m <= EDGE; m += 16)
    for (size_t k = EDGE; k <= 4 * EDGE; k += EDGE) tile_block_case(t, m, 67, k, CK_BF16, any_type(t), m / 16, any_place(t));
  for (size_t order = 0; order <= 2; order++)
    for (int high = -60; high <= 127; high += 17) {
      tile_bits_case(t, 32, 32, 64, order, -149, high);
      tile_bits_case(t, 19, 33, 40, order, -70, -55);  // products on both sides of the least normal number
    }
}

// Bits of the style: B transposed, B packed, integers, extremes; then the epilogue: none, a residual of its own, C as the
// residual.
typedef struct tile_shape {
  size_t batch, m, n, k, style, typed;
  ck_split split;
} tile_shape;

// What extremes are put into operands: pairs whose products stay finite, mostly; then what is not finite.
static void put_extremes(test *t, operand *a, operand *b) {
  static const double large[] = {1e38, 3.4e38, 1e30, 1e20, 0x1p126, FLT_MAX},
                      small[] = {1e-38, 1e-45, 1e-40, 1e-30, 0x1p-126, 3e-39};
  for (size_t count = 0; count < 3; count++) {
    set_element(a, random_below(t, a->rows), random_below(t, a->n), large[random_below(t, COUNT(large))]);
    set_element(b, random_below(t, b->rows), random_below(t, b->n), small[random_below(t, COUNT(small))]);
    set_element(a, random_below(t, a->rows), random_below(t, a->n), small[random_below(t, COUNT(small))]);
  }
  if (one_in(t, 2)) set_element(a, random_below(t, a->rows), random_below(t, a->n), one_in(t, 2) ? INFINITY : NAN);
  if (one_in(t, 2)) set_element(b, random_below(t, b->rows), random_below(t, b->n), one_in(t, 2) ? -INFINITY : NAN);
}

// Products that hold extremes: errors below the normal range are absolute, and sums past the largest may be infinite.
static void check_extremes(test *t, const product *p, double roundings) {
  for (size_t i = 0; i < p->m; i++)
    for (size_t j = 0; j < p->n; j++) {
      double sum = 0, magnitude = 0;
      for (size_t k = 0; k < p->k; k++) {
        const double term = value(&p->a, i, k) * value(&p->b, k, j);
        sum += term, magnitude += isfinite(term) ? fabs(term) : 0;
      }
      if (magnitude > FLT_MAX / 2) continue;  // may overflow on the way
      const double got = element(p->c, i, j), bound = gamma_of(roundings) * magnitude + roundings * 0x1p-149;
      if (isnan(sum)   ? !isnan(got)
          : isinf(sum) ? got != sum
                       : !(fabs(got - sum) <= bound + storage_error(p->c->type, fabs(sum) + bound)))
        fail(t, "[%zu, %zu] is %.9g, not %.9g of %.3g", i, j, got, sum, magnitude);
    }
}

static void tile_gemm_case(test *t, const void *shape, size_t threads) {
  const tile_shape s = *(const tile_shape *)shape;
  const size_t batch = s.batch, m = s.m, n = s.n, k = s.k, order = ck_tile_order(s.split);
  const int tb = s.style & 1, packs = s.style >> 1 & 1, exact = s.style >> 2 & 1, extremes = s.style >> 3 & 1;
  const size_t finishes = extremes ? 0 : s.style >> 4;
  situation(t, AT_END, "batch=%zu m=%zu n=%zu k=%zu style=%zu typed=%zu split=%d threads=%zu", batch, m, n, k, s.style, s.typed,
            s.split, threads);
  side a = {.at = values(t, s.typed, batch * m, k, exact)}, b = {.transposed = tb};
  b.at = values(t, s.typed, (packs ? 1 : batch) * (tb ? n : k), tb ? k : n, exact);
  operand *c = extremes && s.typed ? matrix(t, CK_BF16, batch * m, n, n, 1) : values(t, s.typed, batch * m, n, exact);
  if (extremes && k) put_extremes(t, a.at, b.at);
  c->written = 1;
  finish f = fixed_finish(t, finishes, s.typed, c, exact);
  const size_t b_rows = tb ? n : k;
  ck_gemm call = gemm_call(t, &a, &b, c, batch, k, packs, &f);
  call.split = s.split;
  if (packs && n && k && b.at->type == CK_BF16 && one_in(t, 2))
    call.packed_range = ck_packed_range(t->table, n, k, call.packed, 2);
  f.held = values_of(c);
  seal(t);
  if (ck_tile_gemm(t->table, &call, threads)) fail(t, "no scratch");
  check_untouched(t);
  for (size_t z = 0; threads == 1 && z < batch; z++) {
    a.first = z * m, b.first = packs ? 0 : z * b_rows;
    const product p = {a, b, c, z * m, 0, m, n, k};
    if (extremes && batch == 1) check_extremes(t, &p, (double)k + 3 + pieces_drop(order, k));
    for (size_t i = 0; !extremes && i < m; i++)
      for (size_t j = 0; j < n; j++) {
        double sum = 0, magnitude = 0;
        for (size_t q = 0; q < k; q++) {
          const double term = value(&a, i, q) * value(&b, q, j);
          sum += term, magnitude += fabs(term);
        }
        check_finished(t, c, z * m + i, j, sum, magnitude, (double)k + 3 + pieces_drop(order, k), &f);
      }
  }
  free((void *)f.held);
}

// Operands whose magnitudes lie in one binade each, so that one limit of ck_tile_safe at a time is passed. `signs`: the products
// of a row alternate, and their sum is small though the sums of even and of odd k are not.
static void tile_limit_case(test *t, int a_size, int b_size, int signs) {
  const size_t m = 33, n = 35, k = 64;
  situation(t, AT_END, "limits 2^%d 2^%d signs=%d", a_size, b_size, signs);
  side a = {.at = matrix(t, CK_F32, m, k, k, 1)}, b = {.at = matrix(t, CK_F32, k, n, n, 1)};
  for (size_t i = 0; i < m; i++)
    for (size_t p = 0; p < k; p++) set_element(a.at, i, p, ldexp(signs ? 1 : random_in(t, 1, 2), a_size));
  for (size_t p = 0; p < k; p++)
    for (size_t j = 0; j < n; j++) set_element(b.at, p, j, ldexp(signs ? (p % 2 ? -1 : 1) : random_in(t, 1, 2), b_size));
  operand *c = matrix(t, CK_F32, m, n, n, 1);
  c->written = 1;
  const ck_gemm call = {.batch = 1,
                        .m = m,
                        .n = n,
                        .k = k,
                        .a = floats(a.at),
                        .a_rs = k,
                        .a_cs = 1,
                        .b = floats(b.at),
                        .b_rs = n,
                        .b_cs = 1,
                        .c = floats(c),
                        .c_rs = n,
                        .alpha = 1,
                        .split = CK_SPLIT_THREE};
  seal(t);
  if (ck_tile_gemm(t->table, &call, 1)) fail(t, "no scratch");
  check_untouched(t);
  if (!signs) check_extremes(t, &(product){a, b, c, 0, 0, m, n, k}, (double)k + 3);
  for (size_t i = 0; signs && i < m; i++)
    for (size_t j = 0; j < n; j++)
      if (element(c, i, j) != 0) fail(t, "[%zu, %zu] is %g, not 0", i, j, element(c, i, j));
}

// A of bf16 where it lies and, with rows that are not, made into tiles: the same bits.
static void tile_place_case(test *t, size_t m, size_t n, size_t k, int packs, int unsafe) {
  situation(t, AT_END, "places m=%zu n=%zu k=%zu packed=%d unsafe=%d", m, n, k, packs, unsafe);
  operand *a = matrix(t, CK_BF16, m, k, k, 1), *apart = matrix(t, CK_BF16, m, k, k + 1, 1);
  if (unsafe) set_element(a, random_below(t, m), random_below(t, k), one_in(t, 2) ? INFINITY : 1e-38);
  for (size_t i = 0; i < m * k; i++) set_element(apart, i / k, i % k, element(a, i / k, i % k));
  const side b = {.at = matrix(t, CK_BF16, k, n, n, 1)};
  operand *c = matrix(t, CK_F32, m, n, n, 1), *expected = matrix(t, CK_F32, m, n, n, 1);
  const finish f = {.alpha = 1};
  ck_gemm call = gemm_call(t, &(side){.at = a}, &b, c, 1, k, packs, &f);
  c->written = expected->written = 1;
  seal(t);
  int32_t failed = ck_tile_gemm(t->table, &call, 2);
  call.a = floats(apart), call.a_rs = apart->rs, call.c = floats(expected);
  if (failed | ck_tile_gemm(t->table, &call, 1)) fail(t, "no scratch");
  check_untouched(t);
  check_bits(t, c, expected->at, "A as tiles");
}

// ck_f32_gemm takes tiles where the table has them and they pay: the bits say which way it went.
static void tile_choice_case(test *t, size_t m, ck_dtype b_type, ck_split split, int tiles) {
  const int coded = b_type >= CK_DTYPE_COUNT;
  const int few = m < 16;  // of bf16 by bf16 whose range is known
  const size_t n = 96, k = coded ? 64 : few ? 512 + 3 : 64 + 3, nr = t->table->gemm_nr;
  situation(t, AT_END, "choice m=%zu type=%d split=%d", m, b_type, split);
  if (few && nr != EDGE) return;
  ck_kernels with = *t->table, without = *t->table;
  with.tiles = t->table->tiles == CK_TILES_DOT && few ? CK_TILES_DOT : CK_TILES_UNIT, without.tiles = 0;
  operand *a = matrix(t, few ? CK_BF16 : CK_F32, m, k, k, 1);
  const operand *packed =
      coded ? quantized_panels(t, b_type, n, k) : matrix(t, b_type, 1, ck_f32_packed_size(t->table, n, k), 0, 1);
  operand *c = matrix(t, CK_F32, m, n, n, 1), *by_tiles = matrix(t, CK_F32, m, n, n, 1), *by_fma = matrix(t, CK_F32, m, n, n, 1);
  if (padded_to(n, nr) != n) fail(t, "columns beyond n would be multiplied");
  ck_gemm call = {
      .batch = 1, .m = m, .n = n, .k = k, .a = floats(a), .a_rs = k, .a_cs = 1, .packed = packed->at, .c_rs = n, .alpha = 1};
  call.a_type = a->type, call.b_type = b_type, call.split = split;
  if (few) call.packed_range = ck_packed_range(&with, n, k, packed->at, 1);
  call.c = floats(c);
  int32_t failed = ck_f32_gemm(&with, &call, 1);
  call.c = floats(by_tiles);
  failed |= ck_tile_gemm(t->table, &call, 1);
  call.c = floats(by_fma);
  failed |= ck_f32_gemm(&without, &call, 1);
  if (failed) fail(t, "no scratch");
  check_bits(t, c, tiles ? by_tiles->at : by_fma->at, tiles ? "tiles" : "FMA");
  if (!memcmp(by_tiles->at, by_fma->at, m * n * sizeof(float))) fail(t, "both ways have the same bits");
}

void check_tile_gemm(test *t) {
  // Batches; edges; K in slices; rows and columns in several blocks, and cut for threads.
  static const size_t shapes[][4] = {{1, 1, 1, 1},     {2, 17, 33, 31}, {1, 16, 15, 0},   {1, 33, 17, 16}, {3, 5, 31, 17},
                                     {1, 40, 70, 395}, {1, 67, 61, 65}, {1, 35, 45, 530}, {1, 290, 20, 7}, {1, 20, 1090, 5}};
  for (size_t k = 0; k < COUNT(shapes); k++)
    for (size_t style = 0; style < 48; style++) {
      const size_t typed = style % 3 == 0;
      const tile_shape shape = {shapes[k][0], shapes[k][1], shapes[k][2], shapes[k][3], style, typed, (ck_split)(style * 7 % 4)};
      check_threads(t, tile_gemm_case, &shape);
    }
  check_threads(t, tile_gemm_case, &(tile_shape){1, 3, 400, 4000, 0, 0, CK_SPLIT_THREE});  // columns of B some at a time
  // Blocks cut for three threads: the same bits.
  check_threads(t, tile_gemm_case, &(tile_shape){1, 150, 140, 260, 8, 0, CK_SPLIT_THREE});
  for (int swapped = 0; swapped < 2; swapped++) {
    static const int limits[][2] = {{127, -20}, {-120, 60}, {-60, -60}, {-100, 6}};
    for (size_t q = 0; q < COUNT(limits); q++) tile_limit_case(t, limits[q][swapped], limits[q][!swapped], 0);
    tile_limit_case(t, swapped ? 2 : 125, swapped ? 125 : 2, 1);
  }
  for (int kind = 0; kind < 4; kind++) {
    tile_place_case(t, 80, 70, 96, kind & 1, kind >> 1);
    tile_place_case(t, 61, 33, 1056, kind & 1, kind >> 1);
  }
  tile_choice_case(t, 64, CK_F32, CK_SPLIT_THREE, 1);
  tile_choice_case(t, 64, CK_F32, CK_SPLIT_NARROW, 0);
  tile_choice_case(t, 64, CK_BF16, CK_SPLIT_NARROW, 1);
  tile_choice_case(t, 64, CK_F16, CK_SPLIT_NARROW, 1);
  tile_choice_case(t, 16, CK_BF16, CK_SPLIT_NARROW, 0);
  tile_choice_case(t, 8, CK_BF16, CK_SPLIT_NARROW, 1);
  tile_choice_case(t, 4, CK_BF16, CK_SPLIT_NARROW, 0);
  tile_choice_case(t, 64, CK_Q8_0, CK_SPLIT_ONE, 1);
  tile_choice_case(t, 63, CK_Q8_0, CK_SPLIT_ONE, 0);
  tile_choice_case(t, 64, CK_Q8_0, CK_SPLIT_THREE, 0);
}
