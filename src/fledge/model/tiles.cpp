// Attention on a CPU over tiles of 64 tokens: scores and probabilities of a tile live in the cache and nowhere else.
// tiles.py builds and calls this and says which tiles meet; attention.py has the same in torch.
//
// Shapes: N tokens, h query heads, k key heads, r = h / k, d head size, n = ceil(N / T) tiles. X is float or bf16;
// products of X are summed in float. Exponents are of two: scores are multiplied by 1 / ln 2.
#include "lanes.h"

namespace {

// Tiles whose scores are made before any of them is used: 512 keys. A product of another kind than the last has the
// processor's tiles configured anew, 1.2 microseconds with AMX, as long as the product itself (64 x 64 x 64: 1.0).
constexpr int64_t MANY = 8;

struct Meetings {          // of each tile with others, in the order of the tile that asks
    const int64_t* first;  // (n + 1,)
    const int32_t* other;  // (P,)
    const int32_t* row;    // (P,) of bits; -1: every token of the one sees every token of the other
    const uint64_t* bits;  // (., T) of each token of the tile that asks, the other's
};

struct Call {
    int64_t tokens, heads, key_heads, size;  // N, h, k, d
    int64_t q_step, k_step, v_step, d_step;  // from a token to the next; the last of all three gradients
    const void *q_cos, *q_sin, *k_cos, *k_sin;  // (N, d) of X; the first half of sin carries the minus, q's the scale
    Product product;
    Release release;
    Meetings by_query, by_key;
    int64_t threads;
    int64_t tiles() const { return (tokens + T - 1) / T; }
    int64_t shared() const { return heads / key_heads; }
    int64_t real(int64_t tile) const { return std::min(T, tokens - tile * T); }
};

// Rotary positions: pairs (e, e + d/2) of T rows are turned, or turned back.
template <class F, class X, class O>
void turn(const F* x, int64_t step, int64_t real, int64_t size, const X* cos, const X* sin, bool back, O* to,
          int64_t to_step) {
    const int64_t half = size / 2;
    const __m512 sign = _mm512_set1_ps(back ? -1.0f : 1.0f);
    for (int64_t j = 0; j < real; j++)
        for (int64_t e = 0; e < half; e += W) {
            const __mmask16 m = lanes(half - e);
            const X *c = cos + j * size + e, *s = sin + j * size + e;
            const __m512 a = load(x + j * step + e, m), b = load(x + j * step + half + e, m);
            const __m512 low = _mm512_mul_ps(load(s, m), sign), high = _mm512_mul_ps(load(s + half, m), sign);
            store(to + j * to_step + e, _mm512_fmadd_ps(a, load(c, m), _mm512_mul_ps(b, low)), m);
            store(to + j * to_step + half + e, _mm512_fmadd_ps(b, load(c + half, m), _mm512_mul_ps(a, high)), m);
        }
}

// A tile of queries or keys, turned: (T, d), rows beyond the last token 0.
template <class X> const X* turned(const Call& c, bool query, const X* x, int64_t head, int64_t tile, X* room) {
    const int64_t step = query ? c.q_step : c.k_step, d = c.size, real = c.real(tile), at = tile * T * d;
    const X *cos = (const X*)(query ? c.q_cos : c.k_cos) + at, *sin = (const X*)(query ? c.q_sin : c.k_sin) + at;
    turn(x + tile * T * step + head * d, step, real, d, cos, sin, false, room, d);
    if (real < T) std::memset(room + real * d, 0, (T - real) * d * sizeof(X));
    return room;
}

template <class X> struct Packs {  // tiles of one tensor, (heads, n, T * d)
    X* at;
    const Call& c;
    X* of(int64_t head, int64_t tile) const { return at + (head * c.tiles() + tile) * T * c.size; }
};

// A tile as the left side, (T, d): copied, so that all left sides are alike and none reaches beyond its tensor.
template <class X> const X* copied(const Call& c, const X* x, int64_t step, int64_t head, int64_t tile, X* room) {
    const int64_t real = c.real(tile), d = c.size;
    for (int64_t j = 0; j < real; j++) std::memcpy(room + j * d, x + (tile * T + j) * step + head * d, d * sizeof(X));
    std::memset(room + real * d, 0, (T - real) * d * sizeof(X));
    return room;
}

template <class X> struct Room {  // of a thread
    std::vector<float> scores, slopes, sums, more;
    std::vector<X> shares, rises, left, second;
    explicit Room(const Call& c)
        : scores(MANY * T * T), slopes(MANY * T * T), sums(T * c.size), more(T * c.size), shares(MANY * T * T),
          rises(MANY * T * T), left(T * c.size), second(T * c.size) {}
};

inline uint64_t seen(const Meetings& m, int64_t pair, int64_t j) {
    return m.row[pair] < 0 ? ~uint64_t(0) : m.bits[m.row[pair] * T + j];
}

// One query tile of one head: -> out (real, d) and lse (T,), the logarithm of two of the sum of 2^scores; infinite for
// a token that sees nothing, whose output is 0.
template <class X>
void forward_tile(const Call& c, int64_t head, int64_t tile, const X* q, const Packs<X>& keys, const Packs<X>& values,
                  X* out, float* lse, Room<X>& room) {
    const int64_t d = c.size, real = c.real(tile), group = head / c.shared();
    const Meetings& m = c.by_query;
    const X* left = turned(c, true, q, head, tile, room.left.data());
    float *s = room.scores.data(), *sums = room.sums.data(), most[T], total[T];
    X* shares = room.shares.data();
    std::fill_n(most, T, -INF);
    std::fill_n(total, T, 0.0f);
    const int64_t begin = m.first[tile], end = m.first[tile + 1];
    std::fill_n(sums, T * d, 0.0f);
    for (int64_t p0 = begin; p0 < end; p0 += MANY) {
        const int64_t count = std::min(MANY, end - p0);
        for (int64_t p = 0; p < count; p++)
            c.product(T, T, d, d, T, T, false, left, keys.of(group, m.other[p0 + p]), s + p * T * T, PAIRS<X>);
        for (int64_t j = 0; j < real; j++) {
            __m512 top = _mm512_set1_ps(-INF);
            for (int64_t p = 0; p < count; p++) {
                const uint64_t see = seen(m, p0 + p, j);
                const float* row = s + p * T * T + j * T;
                for (int64_t b = 0; b < T; b += W) {
                    __mmask16 k = __mmask16(see >> b);
                    top = _mm512_mask_max_ps(top, k, top, load(row + b));
                }
            }
            const float here = _mm512_reduce_max_ps(top) * LOG2E, now = here <= most[j] ? most[j] : here;  // keeps NaN
            const float old = power(most[j] - now);
            const __m512 minus = _mm512_set1_ps(now == -INF ? 0 : -now), log2e = _mm512_set1_ps(LOG2E);
            __m512 sum = _mm512_setzero_ps();
            for (int64_t p = 0; p < count; p++) {
                const uint64_t see = seen(m, p0 + p, j);
                const float* row = s + p * T * T + j * T;
                X* to = shares + p * T * T + j * T;
                for (int64_t b = 0; b < T; b += W) {
                    __m512 v = power<X>(_mm512_fmadd_ps(load(row + b), log2e, minus));
                    v = _mm512_maskz_mov_ps(__mmask16(see >> b), v);
                    sum = _mm512_add_ps(sum, v);
                    store(to + b, v);
                }
            }
            total[j] = (most[j] == -INF ? 0 : total[j] * old) + _mm512_reduce_add_ps(sum);
            if (p0 > begin && old != 1 && most[j] != -INF)
                for (int64_t e = 0; e < d; e++) sums[j * d + e] *= old;
            most[j] = now;
        }
        for (int64_t p = 0; p < count; p++)
            c.product(T, d, T, T, d, d, true, shares + p * T * T, values.of(group, m.other[p0 + p]), sums, PAIRS<X>);
    }
    for (int64_t j = 0; j < T; j++) {
        const bool any = j < real && most[j] != -INF;
        lse[j] = any ? most[j] + std::log2(total[j]) : INF;
        if (j >= real) continue;
        const __m512 share = _mm512_set1_ps(any ? 1 / total[j] : 0);
        X* to = out + ((tile * T + j) * c.heads + head) * d;
        for (int64_t e = 0; e < d; e += W) {
            __mmask16 k = lanes(d - e);
            store(to + e, any ? _mm512_mul_ps(load(sums + j * d + e, k), share) : _mm512_setzero_ps(), k);
        }
    }
}

// Scores s and slopes (gradient of the shares) of a row of T others -> shares, and the gradient of the scores.
template <class X, class Lse, class Delta>
inline void descend(const float* s, const float* slopes, uint64_t see, Lse lse, Delta delta, X* shares, X* rises) {
    const __m512 log2e = _mm512_set1_ps(LOG2E);
    for (int64_t b = 0; b < T; b += W) {
        __m512 v = power<X>(_mm512_fmsub_ps(load(s + b), log2e, lse(b)));
        v = _mm512_maskz_mov_ps(__mmask16(see >> b), v);
        if (shares) store(shares + b, v);
        store(rises + b, _mm512_maskz_mul_ps(__mmask16(see >> b), v, _mm512_sub_ps(load(slopes + b), delta(b))));
    }
}

// One query tile of one head: -> d_q (real, d)
template <class X>
void backward_queries(const Call& c, int64_t head, int64_t tile, const X* q, const X* g, const Packs<X>& keys_across,
                      const Packs<X>& values_across, const Packs<X>& keys, const float* lse, const float* delta, X* d_q,
                      Room<X>& room) {
    const int64_t d = c.size, real = c.real(tile), group = head / c.shared();
    const Meetings& m = c.by_query;
    const X* left = turned(c, true, q, head, tile, room.left.data());
    const X* slope = copied(c, g, c.heads * d, head, tile, room.second.data());
    float *s = room.scores.data(), *slopes = room.slopes.data(), *sums = room.sums.data();
    X* rises = room.rises.data();
    std::fill_n(sums, T * d, 0.0f);
    for (int64_t p0 = m.first[tile], end = m.first[tile + 1]; p0 < end; p0 += MANY) {
        const int64_t count = std::min(MANY, end - p0);
        for (int64_t p = 0; p < count; p++) {
            const int64_t other = m.other[p0 + p];
            c.product(T, T, d, d, T, T, false, left, keys_across.of(group, other), s + p * T * T, PAIRS<X>);
            c.product(T, T, d, d, T, T, false, slope, values_across.of(group, other), slopes + p * T * T, PAIRS<X>);
        }
        for (int64_t p = 0; p < count; p++)
            for (int64_t j = 0; j < real; j++) {
                const __m512 l = _mm512_set1_ps(lse[j]), a = _mm512_set1_ps(delta[j]);
                const int64_t at = p * T * T + j * T;
                descend<X>(s + at, slopes + at, seen(m, p0 + p, j), [&](int64_t) { return l; },
                           [&](int64_t) { return a; }, nullptr, rises + at);
            }
        for (int64_t p = 0; p < count; p++)
            c.product(T, d, T, T, d, d, true, rises + p * T * T, keys.of(group, m.other[p0 + p]), sums, PAIRS<X>);
    }
    const int64_t at = tile * T * d;
    turn(sums, d, real, d, (const X*)c.q_cos + at, (const X*)c.q_sin + at, true, d_q + tile * T * c.d_step + head * d,
         c.d_step);
}

// One key tile of one key head: -> d_k and d_v (real, d). Scores are made transposed, so that nothing is turned round
// and no two threads write to one place.
template <class X>
void backward_keys(const Call& c, int64_t group, int64_t tile, const X* k, const X* v, const Packs<X>& queries_across,
                   const Packs<X>& slopes_across, const Packs<X>& queries, const Packs<X>& outs, const float* lse,
                   const float* delta, X* d_k, X* d_v, Room<X>& room) {
    const int64_t d = c.size, real = c.real(tile), n = c.tiles();
    const Meetings& m = c.by_key;
    const X* key = turned(c, false, k, group, tile, room.left.data());
    const X* value = copied(c, v, c.v_step, group, tile, room.second.data());
    float *s = room.scores.data(), *slopes = room.slopes.data(), *to_k = room.sums.data(), *to_v = room.more.data();
    X *shares = room.shares.data(), *rises = room.rises.data();
    std::fill_n(to_k, T * d, 0.0f);
    std::fill_n(to_v, T * d, 0.0f);
    const int64_t begin = m.first[tile], all = (m.first[tile + 1] - begin) * c.shared();  // query tiles of each head
    for (int64_t u0 = 0; u0 < all; u0 += MANY) {
        const int64_t count = std::min(MANY, all - u0);
        auto each = [&](auto use) {
            for (int64_t u = u0; u < u0 + count; u++) {
                const int64_t pair = begin + u / c.shared(), head = group * c.shared() + u % c.shared();
                use(pair, head, int64_t(m.other[pair]), (u - u0) * T * T);
            }
        };
        each([&](int64_t, int64_t head, int64_t other, int64_t at) {
            c.product(T, T, d, d, T, T, false, key, queries_across.of(head, other), s + at, PAIRS<X>);
            c.product(T, T, d, d, T, T, false, value, slopes_across.of(head, other), slopes + at, PAIRS<X>);
        });
        each([&](int64_t pair, int64_t head, int64_t other, int64_t at) {
            const float *l = lse + (head * n + other) * T, *a = delta + (head * n + other) * T;
            for (int64_t j = 0; j < real; j++)
                descend<X>(s + at + j * T, slopes + at + j * T, seen(m, pair, j), [&](int64_t b) { return load(l + b); },
                           [&](int64_t b) { return load(a + b); }, shares + at + j * T, rises + at + j * T);
        });
        each([&](int64_t, int64_t head, int64_t other, int64_t at) {
            c.product(T, d, T, T, d, d, true, shares + at, outs.of(head, other), to_v, PAIRS<X>);
            c.product(T, d, T, T, d, d, true, rises + at, queries.of(head, other), to_k, PAIRS<X>);
        });
    }
    const int64_t at = tile * T * d, to = tile * T * c.d_step + group * d;
    turn(to_k, d, real, d, (const X*)c.k_cos + at, (const X*)c.k_sin + at, true, d_k + to, c.d_step);
    for (int64_t j = 0; j < real; j++)
        for (int64_t e = 0; e < d; e += W)
            store(d_v + to + j * c.d_step + e, load(to_v + j * d + e, lanes(d - e)), lanes(d - e));
}

template <class X>
void forward(const Call& c, const X* q, const X* k, const X* v, X* packs, X* out, float* lse) {
    const int64_t n = c.tiles(), d = c.size, all = c.key_heads * n * T * d;
    Packs<X> keys{packs, c}, values{packs + all, c};
#pragma omp parallel num_threads(c.threads)
    {
        Room<X> room(c);
#pragma omp for schedule(static)
        for (int64_t u = 0; u < c.key_heads * n; u++) {
            const int64_t group = u / n, tile = u % n, real = c.real(tile);
            across(turned(c, false, k, group, tile, room.left.data()), d, real, d, keys.of(group, tile));
            along(v + tile * T * c.v_step + group * d, c.v_step, real, d, values.of(group, tile));
        }
#pragma omp for schedule(dynamic, 4)
        for (int64_t u = c.heads * n - 1; u >= 0; u--)
            forward_tile(c, u / n, u % n, q, keys, values, out, lse + u * T, room);
        c.release(PAIRS<X>);
    }
}

template <class X>
void backward(const Call& c, const X* q, const X* k, const X* v, const X* out, const X* g, const float* lse, X* packs,
              float* delta, X* d_q, X* d_k, X* d_v) {
    const int64_t n = c.tiles(), d = c.size, all = c.key_heads * n * T * d, wide = c.heads * n * T * d;
    Packs<X> keys_across{packs, c}, keys{packs + all, c}, values_across{packs + 2 * all, c};
    Packs<X> queries_across{packs + 3 * all, c}, queries{queries_across.at + wide, c};
    Packs<X> slopes_across{queries.at + wide, c}, outs{slopes_across.at + wide, c};
#pragma omp parallel num_threads(c.threads)
    {
        Room<X> room(c);
#pragma omp for schedule(static) nowait
        for (int64_t u = 0; u < c.key_heads * n; u++) {
            const int64_t group = u / n, tile = u % n, real = c.real(tile);
            const X *key = turned(c, false, k, group, tile, room.left.data()), *value = v + tile * T * c.v_step + group * d;
            across(key, d, real, d, keys_across.of(group, tile));
            along(key, d, real, d, keys.of(group, tile));
            across(value, c.v_step, real, d, values_across.of(group, tile));
        }
#pragma omp for schedule(static)
        for (int64_t u = 0; u < c.heads * n; u++) {
            const int64_t head = u / n, tile = u % n, real = c.real(tile), step = c.heads * d;
            const X *query = turned(c, true, q, head, tile, room.left.data()), *slope = g + tile * T * step + head * d;
            const X* result = out + tile * T * step + head * d;
            across(query, d, real, d, queries_across.of(head, tile));
            along(query, d, real, d, queries.of(head, tile));
            across(slope, step, real, d, slopes_across.of(head, tile));
            along(slope, step, real, d, outs.of(head, tile));
            for (int64_t j = 0; j < T; j++) {
                __m512 sum = _mm512_setzero_ps();
                for (int64_t e = 0; j < real && e < d; e += W) {
                    __mmask16 m = lanes(d - e);
                    sum = _mm512_fmadd_ps(load(slope + j * step + e, m), load(result + j * step + e, m), sum);
                }
                delta[u * T + j] = _mm512_reduce_add_ps(sum);
            }
        }
#pragma omp for schedule(dynamic, 4) nowait
        for (int64_t u = c.heads * n - 1; u >= 0; u--)
            backward_queries(c, u / n, u % n, q, g, keys_across, values_across, keys, lse + u * T, delta + u * T, d_q, room);
#pragma omp for schedule(dynamic, 1)
        for (int64_t u = 0; u < c.key_heads * n; u++)
            backward_keys(c, u / n, u % n, k, v, queries_across, slopes_across, queries, outs, lse, delta, d_k, d_v, room);
        c.release(PAIRS<X>);
    }
}

}  // namespace

extern "C" {

// q (N, h, d), k and v (N, k, d) -> out (N, h, d), lse (h, n T); packs: room for 2 k n T d
void fledge_attend_tiles(int half, const Call* c, const void* q, const void* k, const void* v, void* packs, void* out,
                         float* lse) {
    half ? forward(*c, (const bf16*)q, (const bf16*)k, (const bf16*)v, (bf16*)packs, (bf16*)out, lse)
         : forward(*c, (const float*)q, (const float*)k, (const float*)v, (float*)packs, (float*)out, lse);
}

// and g (N, h, d) -> d_q, d_k, d_v as q, k, v; packs: room for (3 k + 4 h) n T d, delta (h, n T)
void fledge_attend_tiles_backward(int half, const Call* c, const void* q, const void* k, const void* v, const void* out,
                                  const void* g, const float* lse, void* packs, float* delta, void* d_q, void* d_k,
                                  void* d_v) {
    half ? backward(*c, (const bf16*)q, (const bf16*)k, (const bf16*)v, (const bf16*)out, (const bf16*)g, lse,
                    (bf16*)packs, delta, (bf16*)d_q, (bf16*)d_k, (bf16*)d_v)
         : backward(*c, (const float*)q, (const float*)k, (const float*)v, (const float*)out, (const float*)g, lse,
                    (float*)packs, delta, (float*)d_q, (float*)d_k, (float*)d_v);
}
}
