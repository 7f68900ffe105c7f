// Products with structure: block-sparse weights, a product for each group of rows or columns, low-rank updates.
#include <stdlib.h>

#include "definitions.h"
#include "products.h"

// W and its blocks, [blocks, block_outputs * block_inputs]. What sticks out of W is NaN.
typedef struct sparse {
  ck_sparse_weights w;
  const operand *blocks;
  operand *packed;
  size_t rows, panels, width;  // block rows; panels of one, and their outputs
} sparse;

static size_t pieces_of(size_t count, size_t size) { return (count + size - 1) / size; }

static sparse sparse_of(test *t, size_t outputs, size_t inputs, size_t block_outputs, size_t block_inputs, int exact) {
  enum { MOST_BLOCKS = 4096 };
  static int32_t columns[MOST_BLOCKS];
  sparse s = {.w = {.outputs = outputs, .inputs = inputs, .block_outputs = block_outputs, .block_inputs = block_inputs}};
  s.rows = pieces_of(outputs, block_outputs), s.width = ck_sparse_width(t->table, block_outputs);
  s.panels = pieces_of(block_outputs, s.width);
  int32_t *offsets = indices(t, s.rows + 1);
  size_t count = 0;
  for (size_t row = 0; row < s.rows; row++) {
    for (size_t column = 0; column < pieces_of(inputs, block_inputs); column++)
      if (one_in(t, 2) && count < MOST_BLOCKS) columns[count++] = (int32_t)column;
    offsets[row + 1] = (int32_t)count;
  }
  int32_t *own = indices(t, count);
  for (size_t k = 0; k < count; k++) own[k] = columns[k];
  s.w.offsets = offsets, s.w.columns = own;
  const size_t size = block_outputs * block_inputs;
  operand *blocks = exact ? integers(t, CK_F32, count, size, size) : matrix(t, CK_F32, count, size, size, 2);
  for (size_t row = 0; row < s.rows; row++)
    for (size_t k = (size_t)offsets[row]; k < (size_t)offsets[row + 1]; k++)
      for (size_t e = 0; e < size; e++)
        if (row * block_outputs + e / block_inputs >= outputs || (size_t)own[k] * block_inputs + e % block_inputs >= inputs)
          set_element(blocks, k, e, NAN);
  s.packed = vector(t, ck_f32_sparse_packed_size(t->table, count, block_outputs, block_inputs), 1);
  s.blocks = blocks, s.w.packed = floats(s.packed);
  return s;
}

// [block row][panel][block][block_inputs][width], zeros beyond the block.
static void fill_packed(const sparse *s) {
  const size_t deep = s->w.block_inputs;
  size_t at = 0;
  for (size_t row = 0; row < s->rows; row++)
    for (size_t panel = 0; panel < s->panels; panel++)
      for (int32_t k = s->w.offsets[row]; k < s->w.offsets[row + 1]; k++)
        for (size_t e = 0; e < deep * s->width; e++) {
          const size_t output = panel * s->width + e % s->width;
          const int inside = output < s->w.block_outputs;
          set_element(s->packed, 0, at++, inside ? element(s->blocks, (size_t)k, output * deep + e / s->width) : 0);
        }
}

// Output j of W by row i of a, over the blocks there are.
static void check_sparse(test *t, const sparse *s, const operand *a, const operand *c, size_t first, const finish *f) {
  const size_t deep = s->w.block_inputs;
  for (size_t i = 0; i < c->rows; i++)
    for (size_t j = 0; j < c->n; j++) {
      const size_t row = (first + j) / s->w.block_outputs, within = (first + j) % s->w.block_outputs;
      double sum = 0, magnitude = 0, count = 0;
      for (size_t k = (size_t)s->w.offsets[row]; k < (size_t)s->w.offsets[row + 1]; k++)
        for (size_t p = 0; p < deep; p++) {
          const size_t input = (size_t)s->w.columns[k] * deep + p;
          if (input >= s->w.inputs) break;
          const double term = element(a, i, input) * element(s->blocks, k, within * deep + p);
          sum += term, magnitude += fabs(term), count++;
        }
      check_finished(t, c, i, j, sum, magnitude, count + 3, f);
    }
}

typedef struct sparse_shape {
  size_t m, outputs, inputs, block_outputs, block_inputs;
} sparse_shape;

static sparse_shape any_shape(test *t) {
  return (sparse_shape){random_below(t, 2 * t->table->gemm_mr + 2), 1 + random_below(t, 70), 1 + random_below(t, 40),
                        1 + random_below(t, 3 * t->table->gemm_nr / 2), 1 + random_below(t, 9)};
}

void check_sparse_pack(test *t) {
  for (size_t repeat = 0; repeat < 200; repeat++) {
    const sparse_shape h = any_shape(t);
    situation(t, AT_END, "%zux%zu in blocks of %zux%zu", h.outputs, h.inputs, h.block_outputs, h.block_inputs);
    const sparse s = sparse_of(t, h.outputs, h.inputs, h.block_outputs, h.block_inputs, 0);
    double *expected;
    fill_packed(&s), expected = values_of(s.packed);
    for (size_t k = 0; k < s.packed->n; k++) set_element(s.packed, 0, k, 99);
    s.packed->written = 1;
    seal(t);
    ck_f32_sparse_pack(t->table, &s.w, floats(s.blocks), floats(s.packed));
    check_untouched(t);
    for (size_t k = 0; k < s.packed->n; k++) check_element(t, s.packed, 0, k, expected[k], 0);
    free(expected);
  }
}

// A run of panels.
void check_sparse_block(test *t) {
  for (size_t repeat = 0; repeat < 1500; repeat++) {
    const sparse_shape h = any_shape(t);
    const int place = any_place(t), exact = one_in(t, 3);
    situation(t, place, "m=%zu %zux%zu in blocks of %zux%zu exact=%d place=%d", h.m, h.outputs, h.inputs, h.block_outputs,
              h.block_inputs, exact, place);
    const sparse s = sparse_of(t, h.outputs, h.inputs, h.block_outputs, h.block_inputs, exact);
    fill_packed(&s);
    const size_t first = random_below(t, s.rows * s.panels), last = first + 1 + random_below(t, s.rows * s.panels - first);
    size_t ends[2] = {first, last};
    for (size_t e = 0; e < COUNT(ends); e++) {
      const size_t output = ends[e] / s.panels * h.block_outputs + ends[e] % s.panels * s.width;
      ends[e] = MIN(output, h.outputs);
    }
    operand *a = values(t, 0, h.m, h.inputs, exact), *c = values(t, 0, h.m, ends[1] - ends[0], exact);
    if (h.m && one_in(t, 4)) set_element(a, random_below(t, h.m), random_below(t, h.inputs), NAN);  // some outputs see it
    c->written = 1;
    const finish f = any_finish(t, 0, c, 1, c->n, exact);
    ck_sparse_block block = {.weights = &s.w, .m = h.m, .first = first, .last = last, .alpha = (float)f.alpha};
    block.a = floats(a), block.a_rs = a->rs, block.c = floats(c), block.c_rs = c->rs, block.bias = floats(f.bias);
    block.residual = floats(f.residual), block.residual_rs = f.residual ? f.residual->rs : 0, block.activation = f.activation;
    seal(t);
    t->table->f32_sparse_block(&block);
    check_untouched(t);
    check_sparse(t, &s, a, c, ends[0], &f);
    free((void *)f.held);
  }
}

static void sparse_linear_case(test *t, const void *shape, size_t threads) {
  const sparse_shape h = *(const sparse_shape *)shape;
  const int exact = one_in(t, 3), typed = one_in(t, 2);
  situation(t, AT_END, "m=%zu %zux%zu in blocks of %zux%zu exact=%d typed=%d threads=%zu", h.m, h.outputs, h.inputs,
            h.block_outputs, h.block_inputs, exact, typed, threads);
  const sparse s = sparse_of(t, h.outputs, h.inputs, h.block_outputs, h.block_inputs, exact);
  fill_packed(&s);
  operand *x = values(t, typed, h.m, h.inputs, exact), *y = values(t, typed, h.m, h.outputs, exact);
  y->written = 1;
  const finish f = any_finish(t, typed, y, 1, h.outputs, exact);
  ck_sparse_linear call = {.m = h.m, .weights = s.w, .alpha = (float)f.alpha, .bias = floats(f.bias), .activation = f.activation};
  call.x = x->at, call.x_rs = x->rs, call.x_type = x->type, call.y = y->at, call.y_rs = y->rs, call.y_type = y->type;
  if (f.residual) call.residual = f.residual->at, call.residual_rs = f.residual->rs, call.residual_type = f.residual->type;
  seal(t);
  if (ck_f32_sparse_linear(t->table, &call, threads)) fail(t, "no scratch");
  check_untouched(t);
  if (threads == 1) check_sparse(t, &s, x, y, 0, &f);
  free((void *)f.held);
}

void check_sparse_linear(test *t) {
  // Rows of 512 columns compete for cache sets and are copied; the last two are cut for threads.
  static const sparse_shape shapes[] = {{0, 5, 5, 2, 2}, {40, 33, 512, 16, 16}, {70, 300, 200, 32, 8}, {200, 130, 100, 24, 10}};
  for (size_t repeat = 0; repeat < 200; repeat++) {
    const sparse_shape shape = any_shape(t);
    check_threads(t, sparse_linear_case, &shape);
  }
  for (size_t repeat = 0; repeat < 6; repeat++)
    for (size_t k = 0; k < COUNT(shapes); k++) check_threads(t, sparse_linear_case, &shapes[k]);
}

typedef struct grouped_shape {
  size_t groups, m, n, k;
  int rows;  // groups have rows of their own, m of all; else columns
} grouped_shape;

static void grouped_case(test *t, const void *shape, size_t threads) {
  enum { MOST_GROUPS = 5 };
  const grouped_shape s = *(const grouped_shape *)shape;
  const size_t across = s.rows ? 1 : s.groups;  // groups side by side in x and y
  const int exact = one_in(t, 3), typed = one_in(t, 2);
  situation(t, AT_END, "groups=%zu m=%zu n=%zu k=%zu of rows=%d exact=%d typed=%d threads=%zu", s.groups, s.m, s.n, s.k, s.rows,
            exact, typed, threads);
  int32_t *offsets = indices(t, s.groups + 1);
  for (size_t g = 1; g < s.groups; g++) offsets[g] = offsets[g - 1] + (int32_t)random_below(t, s.m + 1 - (size_t)offsets[g - 1]);
  offsets[s.groups] = (int32_t)s.m;
  operand *x = values(t, typed, s.m, across * s.k, exact), *y = values(t, typed, s.m, across * s.n, exact);
  operand *b = values(t, typed, s.groups * s.k, s.n, exact);
  const size_t packed_size = ck_f32_packed_size(t->table, s.n, s.k);
  operand *packed = matrix(t, b->type, s.groups, packed_size, packed_size, 1);
  const void *panels[MOST_GROUPS];
  for (size_t g = 0; g < s.groups; g++) {
    pack(&(side){.at = b, .first = g * s.k}, 0, s.n, s.k, t->table->gemm_nr, packed, g);
    panels[g] = (const char *)packed->at + g * packed_size * ck_dtype_size(b->type);
  }
  y->written = 1;
  finish f = any_finish(t, typed, y, s.groups, s.n, exact);
  ck_grouped call = {.groups = s.groups, .m = s.m, .n = s.n, .k = s.k, .offsets = s.rows ? offsets : 0, .packed = panels};
  call.x = x->at, call.x_rs = x->rs, call.x_type = x->type, call.y = y->at, call.y_rs = y->rs, call.y_type = y->type;
  call.b_type = b->type, call.alpha = (float)f.alpha, call.activation = f.activation;
  call.bias = floats(f.bias), call.bias_gs = f.bias ? f.bias->rs : 0;
  if (f.residual) call.residual = f.residual->at, call.residual_rs = f.residual->rs, call.residual_type = f.residual->type;
  if (!s.rows) call.x_gs = s.k, call.y_gs = call.residual_gs = s.n;
  ck_tile_range ranges[MOST_GROUPS];
  for (size_t g = 0; g < s.groups; g++) {
    const int known = b->type == CK_BF16 && s.n && s.k && !one_in(t, 4);
    ranges[g] = known ? ck_packed_range(t->table, s.n, s.k, panels[g], 1) : (ck_tile_range){0, 0};
  }
  if (one_in(t, 2)) call.ranges = ranges;
  seal(t);
  if (ck_f32_grouped(t->table, &call, threads)) fail(t, "no scratch");
  check_untouched(t);
  for (size_t g = 0; threads == 1 && g < s.groups; g++) {
    const size_t first = s.rows ? (size_t)offsets[g] : 0, left = s.rows ? 0 : g;
    product p = {
        .a = {.at = x, .first = first, .left = left * s.k}, .b = {.at = b, .first = g * s.k}, .c = y, .k = s.k, .n = s.n};
    p.row = first, p.column = left * s.n, p.m = s.rows ? (size_t)offsets[g + 1] - first : s.m;
    f.bias_row = g, f.bias_left = p.column;
    check_product(t, &p, &f);
  }
  free((void *)f.held);
}

void check_grouped(test *t) {
  // No depth; K in slices; enough rows and columns to pack A; B in several blocks of columns.
  static const size_t sizes[][4] = {{1, 1, 1, 1},     {3, 5, 7, 0},     {4, 0, 5, 3},     {5, 33, 19, 17}, {2, 9, 70, 395},
                                    {3, 90, 130, 40}, {2, 60, 300, 20}, {4, 20, 40, 800}, {2, 5, 1200, 9}, {3, 90, 96, 200}};
  for (size_t repeat = 0; repeat < 5; repeat++)
    for (size_t k = 0; k < 2 * COUNT(sizes); k++) {
      const size_t *size = sizes[k / 2];
      const grouped_shape shape = {size[0], size[1], size[2], size[3], k % 2};
      check_threads(t, grouped_case, &shape);
    }
}

typedef struct low_rank_shape {
  size_t m, n, k, rank;
} low_rank_shape;

// A factor of the product, [k, n], as it is or in panels.
static ck_gemm factor(test *t, const side *b, size_t n, size_t k) {
  ck_gemm g = {.n = n, .k = k, .b = floats(b->at), .b_rs = b->at->rs, .b_cs = 1, .b_type = b->at->type};
  if (b->transposed) g.b_rs = 1, g.b_cs = b->at->rs;
  if (!one_in(t, 3)) return g;
  operand *packed = matrix(t, b->at->type, 1, ck_f32_packed_size(t->table, n, k), 0, 1);
  pack(b, 0, n, k, t->table->gemm_nr, packed, 0);
  g.packed = floats(packed), g.b = 0;
  return g;
}

static void low_rank_case(test *t, const void *shape, size_t threads) {
  const low_rank_shape s = *(const low_rank_shape *)shape;
  const int exact = one_in(t, 3), typed = one_in(t, 2), across = one_in(t, 2), bare = one_in(t, 3);
  situation(t, AT_END, "m=%zu n=%zu k=%zu rank=%zu exact=%d typed=%d bare=%d threads=%zu", s.m, s.n, s.k, s.rank, exact, typed,
            bare, threads);
  const side a = {.at = values(t, typed, s.m, s.k, exact)}, up = {.at = values(t, typed, s.rank, s.n, exact)};
  const side b = {.at = values(t, typed, across ? s.n : s.k, across ? s.k : s.n, exact), .transposed = across};
  const side down = {.at = values(t, typed, s.k, s.rank, exact)};
  operand *c = values(t, typed, s.m, s.n, exact);
  c->written = 1;
  finish f = any_finish(t, typed, c, 1, s.n, exact);
  const double alpha = f.alpha, scale = exact ? -2 : 0.75;
  ck_gemm base = factor(t, &b, s.n, s.k);
  if (bare) base.b = 0, base.packed = 0;
  const ck_gemm narrow = factor(t, &down, s.rank, s.k), wide = factor(t, &up, s.n, s.rank);
  base.batch = 1, base.m = s.m, base.alpha = (float)alpha, base.bias = floats(f.bias), base.activation = f.activation;
  base.a = floats(a.at), base.a_rs = a.at->rs, base.a_cs = 1, base.a_type = a.at->type;
  base.c = floats(c), base.c_rs = c->rs, base.c_type = c->type, base.residual = floats(f.residual);
  if (f.residual) base.residual_rs = f.residual->rs, base.residual_type = f.residual->type;
  seal(t);
  if (ck_f32_low_rank(t->table, &base, &narrow, &wide, (float)scale, threads)) fail(t, "no scratch");
  check_untouched(t);
  f.alpha = 1;  // that of the base is in the sums
  for (size_t item = 0; threads == 1 && item < s.m * s.n; item++) {
    const size_t i = item / s.n, j = item % s.n;
    double sum = 0, magnitude = 0;
    for (size_t p = 0; p < s.k; p++) {
      const double plain = bare ? 0 : value(&b, p, j);
      double term = alpha * plain, size = fabs(alpha * plain);
      for (size_t r = 0; r < s.rank; r++) {
        const double update = scale * value(&down, p, r) * value(&up, r, j);
        term += update, size += fabs(update);
      }
      sum += value(&a, i, p) * term, magnitude += fabs(value(&a, i, p)) * size;
    }
    check_finished(t, c, i, j, sum, magnitude, (double)(s.k + s.rank) + 6, &f);
  }
  free((void *)f.held);
}

void check_low_rank(test *t) {
  static const low_rank_shape shapes[] = {{0, 3, 3, 1}, {1, 33, 65, 4}, {7, 19, 30, 1}, {30, 70, 50, 8}, {300, 40, 20, 3}};
  for (size_t repeat = 0; repeat < 24; repeat++)
    for (size_t k = 0; k < COUNT(shapes); k++) check_threads(t, low_rank_case, &shapes[k]);
}
