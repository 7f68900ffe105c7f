// Scaled dot-product attention: o = softmax(s) v with
//   s = cap tanh(scale q k^T / cap) - slope |key - position| + mask
// over the keys a query sees: those from position - before up to position + after. A sink is one more score, of a key whose
// value is zero.
#ifndef CK_ATTENTION_H
#define CK_ATTENTION_H

#include "ck_types.h"

// A `before` or `after` that hides nothing. Any other value is below 2^31.
#define CK_EVERY_KEY ((size_t)PTRDIFF_MAX)

// Query rows of one or more heads, in one pass over the keys. Successive queries (step 1): heads share keys and values, and
// "rows" below are queries of a head. A single query (step 0): "heads" are key heads, and "rows" the query heads of each.
typedef struct ck_attention_block {
  size_t rows, heads, head_dim;
  size_t kv_first, kv_rows;  // keys [kv_first, kv_rows) count: those before are as if they were not there
  const float *q;  // [heads, rows, head_dim]: head h, row i at h * q_hs + i * q_rs
  size_t q_rs, q_hs;
  const float *k;  // [heads, kv_rows, head_dim]
  size_t k_rs, k_hs;  // k_hs 0 where heads share keys
  const float *v;  // [heads, kv_rows, head_dim]
  size_t v_rs, v_hs;
  size_t tile;     // of a single query: keys that every head meets before the next are read, a power of two of 4 to
                   // attention_keys of the table
  float *o;        // [heads, rows, head_dim]; a row that sees no key becomes zeros
  size_t o_rs, o_hs;
  ck_dtype q_type, k_type, v_type, o_type, mask_type;  // pointers are to elements of these types; strides count elements
  const float *k_scales, *v_scales;         // [heads, kv_rows], where k, or v, is CK_I8: row j is k_scales[j] times its codes
  size_t k_scale_hs, v_scale_hs;
  float scale, cap;                         // cap 0: none
  ptrdiff_t position;                       // of row 0, counted in keys; row i stands at position + i * step
  size_t step, before, after;
  const float *slope, *sink;                // [heads, rows] by strides, or NULL
  size_t head_rs, head_hs;                  // of both
  const float *mask;                        // [heads, rows, kv_rows] added to the scores, or NULL; strides may be 0
  size_t mask_rs, mask_hs;
  const int32_t *list;                      // [listed] blocks of list_keys keys, ascending: the keys that rows may see
  size_t listed, list_keys;                 // both 0: every key
  float *lse;                               // [heads, rows] log of the sum of exp(s), or NULL; -inf for a row that sees no key
  size_t lse_rs, lse_hs;
  float *state;  // [heads, rows, 2] of a single query, or NULL. Else the keys are a part of those that the rows
                 // see: o, f32, becomes sum exp(s - m) v, and state m = max s and sum exp(s - m)
  float *scratch;  // ck_attention_scratch elements, 64-byte aligned
} ck_attention_block;

#define CK_ATTENTION_PARTS 16  // most of the parts that the keys of a single query are cut into

// o = sum exp(m_p - m) o_p / sum exp(m_p - m) l_p over the parts p that blocks with a `state` leave, m = max m_p
// (Flash-Decoding; Dao et al., 2023).
typedef struct ck_attention_merge {
  size_t parts, rows, head_dim;  // at most CK_ATTENTION_PARTS
  const float *sums;  // [parts, rows, head_dim]: o_p
  const float *states;  // [parts, rows, 2]: m_p and l_p
  void *o;  // [rows, head_dim] of o_type
  size_t o_rs;
  ck_dtype o_type;
  float *lse;  // [rows], as that of a block
  size_t lse_rs;
} ck_attention_merge;

// Which blocks of keys a block of queries sees, in compressed sparse rows: query i and key j of a sequence, whatever its length,
// lie in block row i / queries and block column j / keys. The masks of a call hide keys beside it. `keys` 0: no such pattern.
typedef struct ck_attention_pattern {
  size_t queries, keys;  // of a block
  const int32_t *offsets;  // [heads * rows + 1]: where the block columns of block row r of head h begin, at h * hs + r
  const int32_t *columns;  // [offsets[heads * rows]]: ascending in a block row
  size_t hs;  // block rows of a head; 0: one pattern for all heads
} ck_attention_pattern;

// Attention over ragged or uniform batches. Query i of a sequence stands at position i + keys - queries.
typedef struct ck_attention {
  size_t sequences, q_heads, kv_heads, head_dim;  // q_heads a multiple of kv_heads
  const int32_t *q_offsets;  // [sequences + 1] first query row of each sequence
  const int32_t *kv_offsets;  // [sequences + 1] first key row of each sequence
  const int32_t *kv_counts;  // [sequences] key rows of each where they do not lie end to end, or NULL
  const float *q;  // row t, head h at q[t * q_rs + h * q_hs]
  size_t q_rs, q_hs;
  const float *k;
  size_t k_rs, k_hs;
  const float *v;
  size_t v_rs, v_hs;
  float *o;
  size_t o_rs, o_hs;
  ck_dtype q_type, k_type, v_type, o_type, mask_type;  // pointers are to elements of these types; strides count elements
  const float *k_scales, *v_scales;  // where k, or v, is CK_I8: of row t, head h at k_scales[t + h * k_scale_hs]
  size_t k_scale_hs, v_scale_hs;
  float scale, cap;  // cap 0: none
  size_t before, after;  // CK_EVERY_KEY and 0: causal
  const float *slopes, *sinks;  // [q_heads] or NULL
  const float *mask;  // added to the scores: sequence s, head h, query i, key j at s * mask_ss + h * mask_hs + i * mask_rs + j
  size_t mask_ss, mask_hs, mask_rs;
  ck_attention_pattern pattern;  // covers the longest sequence
  float *lse;  // row t, head h at lse[t * lse_rs + h * lse_hs]; NULL: not wanted
  size_t lse_rs, lse_hs;
} ck_attention;

// Floats of scratch of a block of `rows` rows of `heads` heads; `typed`: an operand is not f32.
size_t ck_attention_scratch(const ck_kernels *table, size_t rows, size_t heads, size_t head_dim, int32_t typed);
// The keys of a single query are attended to in parts that depend on how many it sees alone, at most CK_ATTENTION_PARTS of at
// least 512, which are put together in their order: for each part and head (head_dim + 2) floats more of scratch, of every head
// where all queries are single ones, else of the heads of a task for each thread. 0, or -1 when scratch memory cannot be had
// (then o and lse are untouched).
int32_t ck_f32_attention(const ck_kernels *table, const ck_attention *call, size_t threads);

#endif
