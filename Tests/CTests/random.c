// Random numbers: Philox 4x32-10 as published, and its transforms in double.
#include "definitions.h"

// The words of one block.
static void philox(uint64_t seed, uint64_t stream, uint64_t block, uint32_t word[4]) {
  uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  word[0] = (uint32_t)block, word[1] = (uint32_t)(block >> 32), word[2] = (uint32_t)stream, word[3] = (uint32_t)(stream >> 32);
  for (int round = 0; round < 10; round++) {
    const uint64_t a = 0xD2511F53ull * word[0], b = 0xCD9E8D57ull * word[2];
    const uint32_t next[4] = {(uint32_t)(b >> 32) ^ word[1] ^ key[0], (uint32_t)b, (uint32_t)(a >> 32) ^ word[3] ^ key[1],
                              (uint32_t)a};
    for (int w = 0; w < 4; w++) word[w] = next[w];
    key[0] += 0x9E3779B9, key[1] += 0xBB67AE85;
  }
}

// Number `number` of a call, and how far from it a kernel may be: the bounds of docs/accuracy.md.
static double number_of(const ck_random *g, uint64_t number, double *error) {
  uint32_t word[4];
  philox(g->seed, g->stream, number / 4, word);
  const size_t w = number % 4;
  *error = 0;
  if (g->distribution == CK_RANDOM_UNIFORM) return (word[w] >> 8) * 0x1p-24;
  if (g->distribution == CK_RANDOM_GUMBEL) {
    const double y = -log(-log(((word[w] >> 9) + 0.5) * 0x1p-23));
    *error = 4 * U * (1 + fabs(y));
    return y;
  }
  const double turns = word[w | 1] * 0x1p-32, radius = sqrt(-2 * log((float)(word[w & 2] | 1) * 0x1p-32));
  // Quarter turns are exact: cos(pi / 2) is 0.
  const double quarter = fmod(4 * turns + (w & 1 ? 0 : 1), 4), angle = quarter * 1.57079632679489661923;
  const double y = radius * (quarter == 0 || quarter == 2 ? 0 : sin(angle));
  *error = 6 * U * fabs(y);
  return y;
}

static ck_random any_numbers(test *t, size_t rows, size_t n, ck_dtype type) {
  ck_random g = {.distribution = (ck_distribution)random_below(t, 4), .seed = random_bits(t), .stream = random_bits(t)};
  g.offset = one_in(t, 3) ? random_below(t, 10) : one_in(t, 2) ? (uint64_t)0 - random_below(t, 200) : random_bits(t);
  g.rows = rows, g.n = n, g.y_type = type;
  if (type != CK_F32 && g.distribution == CK_RANDOM_BITS) g.distribution = CK_RANDOM_NORMAL;
  return g;
}

static void check_number(test *t, const ck_random *g, uint64_t number, const operand *y, size_t i, size_t j) {
  if (g->distribution == CK_RANDOM_BITS) {
    uint32_t word[4];
    philox(g->seed, g->stream, number / 4, word);
    const uint32_t got = ((const uint32_t *)y->at)[i * y->rs + j];
    if (got != word[number % 4]) fail(t, "[%zu, %zu] is %08x, not %08x", i, j, got, word[number % 4]);
    return;
  }
  double error;
  const double expected = number_of(g, number, &error);
  check_element(t, y, i, j, expected, error);
}

// The published answers, then blocks of every kind: near the definition, and the same bits as scalar code.
void check_random(test *t) {
  static const uint32_t answers[3][4] = {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
                                         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
                                         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}};
  static const uint64_t inputs[3][3] = {  // seed, stream, block
                                        {0, 0, 0},
                                        {~0ull, ~0ull, ~0ull},
                                        {0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88}};
  for (size_t k = 0; k < COUNT(answers); k++) {
    situation(t, AT_END, "published answer %zu", k);
    operand *y = vector(t, 4, 1);
    const ck_random g = {.distribution = CK_RANDOM_BITS, .seed = inputs[k][0], .stream = inputs[k][1]};
    t->table->f32_random(&g, inputs[k][2], 1, floats(y));
    check_bits(t, y, answers[k], "Philox");
  }
  for (size_t blocks = 0; blocks <= 70; blocks++)
    for (int place = AT_END; place < PLACES - 1; place += 2) {
      const ck_random g = any_numbers(t, 1, 4 * blocks, CK_F32);
      situation(t, place, "distribution %d, %zu blocks, place=%d", g.distribution, blocks, place);
      operand *y = vector(t, 4 * blocks, 1), *scalar = vector(t, 4 * blocks, 1);
      const uint64_t block = MIN(g.offset / 4, UINT64_MAX / 4 - blocks);  // numbers start again in the driver
      y->written = 1;
      ck_kernels_for(CK_ISA_SCALAR)->f32_random(&g, block, blocks, floats(scalar));
      seal(t);
      t->table->f32_random(&g, block, blocks, floats(y));
      check_untouched(t);
      check_bits(t, y, scalar->at, "scalar code");
      for (size_t j = 0; j < y->n; j++) check_number(t, &g, 4 * block + j, y, 0, j);
    }
}

static void fill_case(test *t, const void *shape, size_t threads) {
  const size_t *s = shape;
  ck_random g = any_numbers(t, s[0], s[1], any_type(t));
  situation(t, AT_END, "distribution %d type %d rows=%zu n=%zu offset=%llu threads=%zu", g.distribution, g.y_type, g.rows, g.n,
            (unsigned long long)g.offset, threads);
  operand *y = matrix(t, g.y_type, g.rows, g.n, stride_for(t, g.n), 1);
  y->written = 1, g.y = y->at, g.y_rs = y->rs;
  seal(t);
  ck_random_fill(t->table, &g, threads);
  check_untouched(t);
  for (size_t item = 0; threads == 1 && item < g.rows * g.n; item++)
    check_number(t, &g, g.offset + item, y, item / g.n, item % g.n);
}

void check_random_fill(test *t) {
  const size_t shapes[][2] = {{0, 5}, {3, 0}, {1, 1}, {7, 3}, {40, 61}, {3, 3001}, {2, 20000}};
  for (size_t repeat = 0; repeat < 20; repeat++)
    for (size_t k = 0; k < COUNT(shapes); k++) check_threads(t, fill_case, shapes[k]);
}
