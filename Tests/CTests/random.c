// Random numbers: Philox's published answers, the transforms in double, one set of bits for all instruction sets, and the driver.
#include <string.h>

#include "definitions.h"

// philox4x32 with 10 rounds, from kat_vectors of Random123: counter, stream and seed, low words first.
static const struct {
  uint64_t block, stream, seed;
  uint32_t words[4];
} answers[] = {
    {0, 0, 0, {0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}},
    {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}},
    {0x85A308D3243F6A88, 0x0370734413198A2E, 0x299F31D0A4093822, {0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}},
};

// Of the words of 2000 blocks, whichever processor makes them.
static const uint64_t hashes[] = {0x8447F1E17211CF8F, 0x0A58CDF819B3DC54, 0x646D4C4EE743E8AC, 0xEEF25E78E62A4031};

// Element j of a block made of these words, and its bound. log is within 1.36 u, measured at all its arguments. A normal number
// has half of that, u for the root, u for the angle, 2 u for its polynomial and u for the product.
static double exact(ck_distribution kind, const uint32_t words[4], size_t j, double *bound) {
  const uint32_t w = words[j], u = words[j & 2], v = words[j | 1];
  if (kind == CK_RANDOM_UNIFORM) return *bound = 0, (w >> 8) * 0x1p-24;
  if (kind == CK_RANDOM_GUMBEL) {
    const double y = -log(-log(((w >> 9) + 0.5) * 0x1p-23));
    return *bound = 4 * U * (1 + fabs(y)), y;
  }
  const uint32_t quarter = (v + 0x20000000) >> 30;
  const double rest = 0x1p-32 * 8 * atan(1) * (int32_t)(v - (quarter << 30));
  const double turned[] = {cos(rest), -sin(rest), -cos(rest), sin(rest)};
  const double y = sqrt(-2 * log((float)(u | 1) * 0x1p-32)) * turned[(quarter + 3 * (j & 1)) % 4];
  return *bound = 6 * U * fabs(y) + 0x1p-149, y;
}

void check_random(test *t) {
  for (size_t k = 0; k < COUNT(answers); k++) {
    situation(t, AT_END, "known answer %zu", k);
    const ck_random call = {.distribution = CK_RANDOM_BITS, .seed = answers[k].seed, .stream = answers[k].stream};
    float y[4];
    t->table->f32_random(&call, answers[k].block, 1, y);
    if (memcmp(y, answers[k].words, sizeof y)) fail(t, "the words differ");
  }
  enum { MOST = 2000 };
  static float scalar[4 * MOST];
  static uint32_t words[4 * MOST];
  for (int kind = 0; kind <= CK_RANDOM_GUMBEL; kind++) {
    situation(t, AT_END, "the same bits on every machine, distribution %d", kind);
    const ck_random call = {.distribution = (ck_distribution)kind, .seed = 1, .stream = 2};
    t->table->f32_random(&call, 0, MOST, (float *)(void *)words);
    uint64_t hash = 0;
    for (size_t j = 0; j < 4 * MOST; j++) hash = (hash ^ words[j]) * 0x100000001B3;
    if (hash != hashes[kind]) fail(t, "the hash is %016llx", (unsigned long long)hash);
  }
  const size_t counts[] = {0, 1, 15, 16, 17, 33, MOST};
  for (int kind = 0; kind <= CK_RANDOM_GUMBEL; kind++)
    for (size_t k = 0; k < COUNT(counts); k++)
      for (int place = AT_END; place < PLACES - 1; place += 5) {
        const size_t n = 4 * counts[k];
        const uint64_t block = k % 2 ? UINT32_MAX - 3 : random_bits(t);
        situation(t, place, "distribution %d, %zu blocks, place=%d", kind, counts[k], place);
        ck_random call = {.distribution = (ck_distribution)kind, .seed = random_bits(t), .stream = random_bits(t)};
        operand *y = vector(t, n, 1);
        y->written = 1;
        seal(t);
        t->table->f32_random(&call, block, counts[k], floats(y));
        check_untouched(t);
        ck_kernels_for(CK_ISA_SCALAR)->f32_random(&call, block, counts[k], scalar);
        call.distribution = CK_RANDOM_BITS;
        t->table->f32_random(&call, block, counts[k], (float *)(void *)words);
        if (memcmp(floats(y), scalar, n * sizeof *scalar)) fail(t, "the bits are not those of scalar code");
        for (size_t j = 0; j < n && kind != CK_RANDOM_BITS; j++) {
          double bound, expected = exact((ck_distribution)kind, words + j / 4 * 4, j % 4, &bound);
          if (fabs(floats(y)[j] - expected) > bound) fail(t, "element %zu is %.9g, not %.9g", j, floats(y)[j], expected);
        }
      }
}

// Every element by a call of its own, whatever the rows, the storage, the threads, and where numbers end.
void check_random_fill(test *t) {
  const size_t shapes[][2] = {{0, 3}, {2, 0}, {1, 1}, {5, 3}, {3, 67}, {2, 1025}, {9, 1030}};
  const uint64_t offsets[] = {0, 1, 3, 0x3FFFFFFFE, 0 - (uint64_t)7, 0 - (uint64_t)1024};
  for (int type = 0; type < CK_DTYPE_COUNT; type++)
    for (size_t k = 0; k < COUNT(shapes); k++)
      for (size_t o = 0; o < COUNT(offsets); o++) {
        const size_t rows = shapes[k][0], n = shapes[k][1], threads = 1 + o % 3;
        const ck_distribution kind = (ck_distribution)(CK_RANDOM_UNIFORM + (k + o) % 3);
        situation(t, AT_END, "type %d rows=%zu n=%zu from %llu", type, rows, n, (unsigned long long)offsets[o]);
        operand *y = matrix(t, (ck_dtype)type, rows, n, stride_for(t, n), 1);
        y->written = 1;
        seal(t);
        const ck_random call = {.distribution = kind,
                                .seed = 5,
                                .stream = 9,
                                .offset = offsets[o],
                                .rows = rows,
                                .n = n,
                                .y = y->at,
                                .y_rs = y->rs,
                                .y_type = y->type};
        ck_random_fill(t->table, &call, threads);
        check_untouched(t);
        for (size_t i = 0; i < rows; i++)
          for (size_t j = 0; j < n; j++) {
            const uint64_t number = offsets[o] + i * n + j;
            float block[4];
            t->table->f32_random(&call, number / 4, 1, block);
            if (element(y, i, j) != rounded(y->type, block[number % 4])) fail(t, "element %zu, %zu", i, j);
          }
      }
}
