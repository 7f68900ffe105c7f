// Which keys the rows of an attention block see, and the tiles in which they come.
#define ATTENTION_KEYS (VL == 16 ? 256 : 128)

// Keys [first, last) that a row sees. Both ends move on with the rows.
typedef struct attention_range_ {
  size_t first, last;
} attention_range_;

CK_INLINE size_t attention_clamp_(ptrdiff_t key, size_t keys) { return key <= 0 ? 0 : CK_MIN((size_t)key, keys); }

CK_INLINE attention_range_ attention_seen_(const ck_attention_block *g, size_t i) {
  const ptrdiff_t at = g->position + (ptrdiff_t)(i * g->step);
  const size_t first = g->before == CK_EVERY_KEY ? 0 : attention_clamp_(at - (ptrdiff_t)g->before, g->kv_rows);
  const size_t last = g->after == CK_EVERY_KEY ? g->kv_rows : attention_clamp_(at + (ptrdiff_t)g->after + 1, g->kv_rows);
  return (attention_range_){first < g->kv_first ? g->kv_first : first, last < g->kv_first ? g->kv_first : last};
}

// Whether a row sees a key: one in its range that is listed.
CK_INLINE int attention_sees_(const ck_attention_block *g, attention_range_ seen) {
  size_t low = 0, high = g->listed;
  while (g->list_keys && low < high) {
    const size_t middle = (low + high) / 2;
    if ((size_t)g->list[middle] * g->list_keys < seen.last)
      low = middle + 1;
    else
      high = middle;
  }
  return seen.first < seen.last && (!g->list_keys || (low && ((size_t)g->list[low - 1] + 1) * g->list_keys > seen.first));
}

// Tiles of keys: runs of listed keys side by side, cut every `tile` from their first key on.
typedef struct attention_walk_ {
  size_t tile;            // most keys of a tile
  size_t first, last;     // keys that some row sees; no tile lies outside
  attention_range_ run;
  size_t listed;          // blocks listed up to the end of the run
  size_t from, to;        // the tile, without keys before and after it that no row sees,
  attention_range_ all;   // and with them
  size_t before, after;   // where listed keys before it end, and those after it begin
} attention_walk_;

// On to the next run of listed keys; 0 after the last.
CK_INLINE int attention_run_(const ck_attention_block *g, attention_walk_ *w) {
  size_t at = w->listed;
  if (at == (g->list_keys ? g->listed : 1)) return 0;
  w->listed = at + 1;
  w->run = (attention_range_){0, g->kv_rows};
  if (!g->list_keys) return 1;
  w->run.first = (size_t)g->list[at] * g->list_keys;
  for (; at + 1 < g->listed && g->list[at + 1] == g->list[at] + 1; at++) w->listed++;
  w->run.last = CK_MIN(((size_t)g->list[at] + 1) * g->list_keys, g->kv_rows);
  return w->run.first < g->kv_rows;
}

// On to the next tile; 0 after the last.
CK_INLINE int attention_next_(const ck_attention_block *g, attention_walk_ *w) {
  size_t k = w->before = w->after;
  if (k >= w->run.last) {
    do {
      w->before = w->run.last;
      if (!attention_run_(g, w)) return 0;
    } while (w->run.last <= w->first);
    k = w->run.first;
    if (k < w->first) k += (w->first - k) / w->tile * w->tile;
  }
  if (k >= w->last) return 0;
  // Less the panels of the first tile that no row sees.
  w->from = k < w->first ? k + (w->first - k) / GEMM_NR * GEMM_NR : k;
  w->all = (attention_range_){k, CK_MIN(k + w->tile, w->run.last)};
  w->to = CK_MIN(w->all.last, w->last);
  w->after = k + w->tile;
  if (w->after >= w->run.last) w->after = w->listed < g->listed ? (size_t)g->list[w->listed] * g->list_keys : (size_t)PTRDIFF_MAX;
  return 1;
}
