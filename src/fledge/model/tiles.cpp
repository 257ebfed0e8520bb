// Attention on a CPU over tiles of 64 tokens: scores and probabilities of a tile live in the cache and nowhere else.
// tiles.py builds and calls this and says which tiles meet; attention.py has the same in torch.
//
// Shapes: N tokens, h query heads, k key heads, r = h / k, d head size, n = ceil(N / T) tiles. X is float or bf16;
// products of X are summed in float. Exponents are of two: scores are multiplied by 1 / ln 2.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <immintrin.h>
#include <limits>
#include <omp.h>
#include <vector>

namespace {

constexpr int64_t T = 64;     // tokens a tile: as many as a word of bits
constexpr int64_t W = 16;     // lanes
// Tiles whose scores are made before any of them is used: 512 keys. A product of another kind than the last has the
// processor's tiles configured anew, 1.2 microseconds with AMX, as long as the product itself (64 x 64 x 64: 1.0).
constexpr int64_t MANY = 8;
constexpr float LOG2E = 1.44269504f, INF = std::numeric_limits<float>::infinity();
typedef uint16_t bf16;

// oneDNN's small product through torch: C (M, N) = or += A (M, K) B, B in the layout of `Packs`
typedef void (*Product)(int64_t M, int64_t N, int64_t K, int64_t lda, int64_t ldb, int64_t ldc, bool add, const void* A,
                        const void* B, float* C, bool pairs);
typedef void (*Release)(bool pairs);

template <class X> constexpr bool PAIRS = sizeof(X) == 2;  // rows of B are interleaved two by two

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

inline __mmask16 lanes(int64_t n) { return n >= W ? 0xffff : n <= 0 ? 0 : __mmask16((1u << n) - 1); }
inline __m512 load(const float* p, __mmask16 m = 0xffff) { return _mm512_maskz_loadu_ps(m, p); }
inline __m512 load(const bf16* p, __mmask16 m = 0xffff) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p)), 16));
}
inline void store(float* p, __m512 v, __mmask16 m = 0xffff) { _mm512_mask_storeu_ps(p, m, v); }
inline void store(bf16* p, __m512 v, __mmask16 m = 0xffff) {  // to nearest, ties to even
#ifdef __AVX512BF16__
    _mm256_mask_storeu_epi16(p, m, (__m256i)_mm512_cvtneps_pbh(v));
#else
    __m512i u = _mm512_castps_si512(v);
    u = _mm512_add_epi32(u, _mm512_add_epi32(_mm512_set1_epi32(0x7fff),
                                             _mm512_and_epi32(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1))));
    _mm256_mask_storeu_epi16(p, m, _mm512_cvtepi32_epi16(_mm512_srli_epi32(u, 16)));
#endif
}

// 2^x for x <= 0 or so: the series of 2^f, |f| <= 1/2, off by 1e-7 (float) and 4e-5 (bf16, whose own rounding is 2e-3)
template <class X> inline __m512 power(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x);  // in this order NaN stays NaN
    __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), f = _mm512_sub_ps(x, n), y;
    auto next = [&](float c) { y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(c)); };
    if constexpr (PAIRS<X>) y = _mm512_set1_ps(9.6181291e-3f);
    else { y = _mm512_set1_ps(1.5403530e-4f); next(1.3333558e-3f); next(9.6181291e-3f); }
    next(5.5504109e-2f); next(2.4022651e-1f); next(6.9314718e-1f); next(1.0f);
    return _mm512_scalef_ps(y, n);
}
inline float power(float x) { return x == -INF ? 0 : std::exp2(x); }

// A tile of a head as the right side of a product: its rows as columns (`across`: size x T), or as they are (T x size).
// Both count words of 32 bits: in bf16 two neighbouring rows of the right side share a word.
inline void transpose(__m512i r[16]) {  // 16 x 16 words
    __m512i t[16];
    for (int i = 0; i < 16; i += 2)
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]), t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    for (int i = 0; i < 16; i += 8)
        for (int j = 0; j < 4; j++) {
            t[i + j] = _mm512_shuffle_i32x4(r[i + j], r[i + j + 4], 0x88);
            t[i + j + 4] = _mm512_shuffle_i32x4(r[i + j], r[i + j + 4], 0xdd);
        }
    for (int j = 0; j < 8; j++) {
        r[j] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
        r[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd);
    }
}
template <class X> void across(const X* x, int64_t step, int64_t real, int64_t size, X* to) {
    const int64_t words = size * sizeof(X) / 4, stride = step * sizeof(X) / 4;
    const int32_t* from = (const int32_t*)x;
    for (int64_t b = 0; b < T; b += W)
        for (int64_t w = 0; w < words; w += W) {
            __m512i r[16];
            for (int64_t j = 0; j < W; j++)
                r[j] = _mm512_maskz_loadu_epi32(b + j < real ? lanes(words - w) : 0, from + (b + j) * stride + w);
            transpose(r);
            for (int64_t j = 0; j < std::min(W, words - w); j++) _mm512_storeu_si512((int32_t*)to + (w + j) * T + b, r[j]);
        }
}
void along(const float* x, int64_t step, int64_t real, int64_t size, float* to) {
    for (int64_t j = 0; j < T; j++)
        if (j < real) std::memcpy(to + j * size, x + j * step, size * sizeof(float));
        else std::memset(to + j * size, 0, size * sizeof(float));
}
void along(const bf16* x, int64_t step, int64_t real, int64_t size, bf16* to) {
    for (int64_t j = 0; j < T; j += 2)
        for (int64_t e = 0; e < size; e += W) {
            auto row = [&](int64_t i) {
                return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(i < real ? lanes(size - e) : 0, x + i * step + e));
            };
            __m512i both = _mm512_or_si512(row(j), _mm512_slli_epi32(row(j + 1), 16));
            _mm512_mask_storeu_epi32((int32_t*)to + j / 2 * size + e, lanes(size - e), both);
        }
}

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
