// A decoding step on a CPU, as a handful of loops: what torch does in about twenty operations a layer, each with its
// own pass over memory and its own cost of being called. native.py builds and calls this; step.py is the same in torch.
//
// Weights and the cache are of type W, float or bf16; sums are float. Two kinds of products: a few rows are bound by
// reading the weights, (out, in) row by row, and activations are float; many rows go through torch's small products
// (core/native.py) in W, with weights packed for them. Shapes: R rows (one new token each), h hidden, k key heads with r
// query heads each, d head size, i intermediate.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#include <omp.h>
#include <type_traits>
#include <vector>

namespace {

constexpr int N = 16;  // lanes
typedef float V __attribute__((vector_size(4 * N)));
typedef int32_t I __attribute__((vector_size(4 * N)));
typedef uint32_t U __attribute__((vector_size(4 * N)));
typedef uint16_t H __attribute__((vector_size(2 * N)));
typedef uint16_t bf16;

inline V load(const float* p) { V v; std::memcpy(&v, p, sizeof v); return v; }
inline V load(const bf16* p) { H v; std::memcpy(&v, p, sizeof v); return (V)(__builtin_convertvector(v, U) << 16); }
inline float one(const float* p) { return *p; }
inline float one(const bf16* p) { uint32_t u = uint32_t(*p) << 16; float f; std::memcpy(&f, &u, 4); return f; }
inline void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }
inline void store(bf16* p, V v) {  // to nearest, ties to even
    U u = (U)v;
    u += 0x7fff + ((u >> 16) & 1);
    H h = __builtin_convertvector(u >> 16, H);
    std::memcpy(p, &h, sizeof h);
}
inline void store(float* p, float f) { *p = f; }
inline void store(bf16* p, float f) { uint32_t u; std::memcpy(&u, &f, 4); *p = (u + 0x7fff + ((u >> 16) & 1)) >> 16; }

inline float sum(V v) {
    typedef float W8 __attribute__((vector_size(32)));
    typedef float W4 __attribute__((vector_size(16)));
    W8 a[2]; std::memcpy(a, &v, sizeof v);
    W8 b = a[0] + a[1];
    W4 c[2]; std::memcpy(c, &b, sizeof b);
    W4 e = c[0] + c[1];
    return (e[0] + e[2]) + (e[1] + e[3]);
}

inline V exponential(V x) {  // 2^n times the series of e^f, |f| <= ln 2 / 2: off by two units in the last place
    const V low = V{} - 87.0f, high = V{} + 88.0f;
    x = x < low ? low : x;
    x = x > high ? high : x;
    V n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // to the nearest whole number
    V f = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    V y = V{} + 1.0f / 5040;
    y = y * f + 1.0f / 720; y = y * f + 1.0f / 120; y = y * f + 1.0f / 24;
    y = y * f + 1.0f / 6; y = y * f + 0.5f; y = y * f + 1.0f; y = y * f + 1.0f;
    return y * (V)((__builtin_convertvector(n, I) + 127) << 23);
}
inline float exponential(float x) { return exponential(V{} + x)[0]; }

// This thread's part of n things.
struct Part {
    int64_t begin, end;
    Part(int64_t n, int64_t step = 1) {
        int64_t blocks = (n + step - 1) / step, threads = omp_get_num_threads(), me = omp_get_thread_num();
        begin = std::min(n, blocks * me / threads * step);
        end = std::min(n, blocks * (me + 1) / threads * step);
    }
};

// J outputs of B rows: x (B, n) times J rows of w (J, n).
template <int J, int B, class W>
inline void tile(const W* w, const float* x, int64_t n, int64_t stride, float out[J][B]) {
    V a[J][B] = {};
    int64_t i = 0;
    for (; i + N <= n; i += N) {
        V xs[B];
        for (int b = 0; b < B; b++) xs[b] = load(x + b * stride + i);
        for (int j = 0; j < J; j++) {
            V ws = load(w + j * n + i);
            for (int b = 0; b < B; b++) a[j][b] += ws * xs[b];
        }
    }
    for (int j = 0; j < J; j++)
        for (int b = 0; b < B; b++) {
            float s = sum(a[j][b]);
            for (int64_t t = i; t < n; t++) s += one(w + j * n + t) * x[b * stride + t];
            out[j][b] = s;
        }
}

template <int J, class W, class F>
inline void rows_of(const W* w, const float* x, int64_t n, int64_t rows, int64_t first, F use) {
    int64_t r = 0;
    auto run = [&](auto tag) {
        constexpr int B = decltype(tag)::value;
        for (; r + B <= rows; r += B) {
            float out[J][B];
            tile<J, B>(w, x + r * n, n, n, out);
            for (int j = 0; j < J; j++)
                for (int b = 0; b < B; b++) use(first + j, r + b, out[j][b]);
        }
    };
    run(std::integral_constant<int, 4>());
    run(std::integral_constant<int, 2>());
    run(std::integral_constant<int, 1>());
}

// use(output, row, value) for this thread's part of the outputs of x (rows, n) times w (outputs, n). Weights are read
// once, four outputs at a time.
template <class W, class F>
void product(const W* w, const float* x, int64_t n, int64_t outputs, int64_t rows, F use) {
    Part part(outputs, 4);
    int64_t j = part.begin;
    for (; j + 4 <= part.end; j += 4) rows_of<4>(w + j * n, x, n, rows, j, use);
    for (; j < part.end; j++) rows_of<1>(w + j * n, x, n, rows, j, use);
}

template <class W, class O>
void normal(const float* x, const W* weight, O* out, int64_t h, float eps) {
    V total = {};
    float rest = 0;
    int64_t i = 0;
    for (; i + N <= h; i += N) { V v = load(x + i); total += v * v; }
    for (int64_t t = i; t < h; t++) rest += x[t] * x[t];
    float scale = 1 / std::sqrt((sum(total) + rest) / h + eps);
    for (i = 0; i + N <= h; i += N) store(out + i, load(x + i) * scale * load(weight + i));
    for (; i < h; i++) store(out + i, x[i] * scale * one(weight + i));
}

struct Rows {  // where each row stands, and where its keys are; all tensors but `own` are read only
    int64_t rows, heads, shared, size;  // R, k, r, d
    int64_t width, room, at;            // W of `prompt`, T of `own`, and the column of `own` that is written now
    const float *cos, *sin;             // (positions, d), see Rotary.tables
    const int64_t *position, *prompt_of, *length, *start;  // (R,); prompt keys of each, first column of `own`
};

// Scores of r queries (r, d) with n keys from `first` on: out (r, step).
template <class W>
void scores_of(const float* q, int64_t r, int64_t d, const W* keys, int64_t n, int64_t, float* out, int64_t step,
               int64_t first = 0) {
    for (int64_t t = first; t < n; t++)
        for (int64_t j = 0; j < r; j++) {
            const float* a = q + j * d;
            const W* b = keys + t * d;
            V total = {};
            int64_t e = 0;
            for (; e + N <= d; e += N) total += load(a + e) * load(b + e);
            float dot = sum(total);
            for (; e < d; e++) dot += a[e] * one(b + e);
            out[j * step + t] = dot;
        }
}

#ifdef __AVX512BF16__
inline V sums_of(V a[16]) {  // of each of sixteen vectors
    auto halves = [](V x, V y, auto low, auto high) { return (V)low((__m512i)x, (__m512i)y) + (V)high((__m512i)x, (__m512i)y); };
    auto low32 = [](__m512i x, __m512i y) { return _mm512_unpacklo_epi32(x, y); };
    auto high32 = [](__m512i x, __m512i y) { return _mm512_unpackhi_epi32(x, y); };
    auto low64 = [](__m512i x, __m512i y) { return _mm512_unpacklo_epi64(x, y); };
    auto high64 = [](__m512i x, __m512i y) { return _mm512_unpackhi_epi64(x, y); };
    auto even_lanes = [](__m512i x, __m512i y) { return _mm512_shuffle_i32x4(x, y, 0x88); };
    auto odd_lanes = [](__m512i x, __m512i y) { return _mm512_shuffle_i32x4(x, y, 0xdd); };
    for (int i = 0; i < 8; i++) a[i] = halves(a[2 * i], a[2 * i + 1], low32, high32);
    for (int i = 0; i < 4; i++) a[i] = halves(a[2 * i], a[2 * i + 1], low64, high64);
    for (int i = 0; i < 2; i++) a[i] = halves(a[2 * i], a[2 * i + 1], even_lanes, odd_lanes);
    return halves(a[0], a[1], even_lanes, odd_lanes);
}

// The same with the processor's products of bf16 pairs, sixteen keys at once; queries are rounded, as in training. Room
// for `spare` keys may be read beyond them, and for as many scores written.
void scores_of(const float* q, int64_t r, int64_t d, const bf16* keys, int64_t n, int64_t spare, float* out, int64_t step) {
    int64_t t = 0;
    for (; d % 32 == 0 && t < n && t + 16 <= n + spare; t += 16)
        for (int64_t j = 0; j < r; j++) {
            V a[16] = {};
            for (int64_t e = 0; e < d; e += 32) {
                const __m512bh w = _mm512_cvtne2ps_pbh((__m512)load(q + j * d + e + 16), (__m512)load(q + j * d + e));
                for (int i = 0; i < 16; i++) {
                    __m512bh k;
                    std::memcpy(&k, keys + (t + i) * d + e, sizeof k);
                    a[i] = (V)_mm512_dpbf16_ps((__m512)a[i], k, w);
                }
            }
            store(out + j * step + t, sums_of(a));
        }
    scores_of<bf16>(q, r, d, keys, n, 0, out, step, t);
}
#endif

template <class W> struct Keys {  // n of them, whose scores begin at `to`; there is room for `spare` more
    const W *k, *v;
    int64_t n, to, spare;
};

// Sums of the values, J queries at once: weights (J, step) -> out (J, d)
template <int J, class W, class O>
void values_of(const Keys<W> (&parts)[2], const float* weights, int64_t step, int64_t d, float* sums, O* out) {
    int64_t e = 0;
    for (; e + 4 * N <= d; e += 4 * N) {
        V a[J][4] = {};
        for (auto& part : parts)
            for (int64_t t = 0; t < part.n; t++)
                for (int x = 0; x < 4; x++) {
                    const V v = load(part.v + t * d + e + x * N);
                    for (int j = 0; j < J; j++) a[j][x] += weights[j * step + part.to + t] * v;
                }
        for (int j = 0; j < J; j++)
            for (int x = 0; x < 4; x++) store(out + j * d + e + x * N, a[j][x]);
    }
    for (int j = 0; j < J && e < d; j++) {
        std::fill(sums + e, sums + d, 0.0f);
        for (auto& part : parts)
            for (int64_t t = 0; t < part.n; t++)
                for (int64_t x = e; x < d; x++) sums[x] += weights[j * step + part.to + t] * one(part.v + t * d + x);
        for (int64_t x = e; x < d; x++) store(out + j * d + x, sums[x]);
    }
}

// One row, one key head: y (r + 2, d) not rotated -> out (r, d); keys and values go into the cache.
template <class O, class W>
void attend_one(const float* y, O* out, const Rows& s, int64_t row, int64_t head, const W* prompt, W* own,
                std::vector<float>& memory) {
    const int64_t d = s.size, r = s.shared, half = d / 2, n0 = prompt ? s.length[row] : 0;
    const int64_t n1 = s.at + 1 - s.start[row], n = (n0 + n1 + N - 1) / N * N;
    const int64_t wide = n + N;  // room for what `scores_of` writes too much
    memory.resize(r * d + r * wide + d);
    float *q = memory.data(), *scores = q + r * d, *sums = scores + r * wide;
    W* keys = own + (row * s.heads + head) * 2 * s.room * d;
    W* values = keys + s.room * d;
    const float* c = s.cos + s.position[row] * d;
    const float* z = s.sin + s.position[row] * d;
    const float scale = 1 / std::sqrt(float(d));
    for (int64_t j = 0; j <= r; j++) {
        float *to = j < r ? q + j * d : sums, by = j < r ? scale : 1;
        for (int64_t t = 0; t < half; t++) {
            float a = y[j * d + t], b = y[j * d + half + t];
            to[t] = (a * c[t] + b * z[t]) * by;
            to[half + t] = (b * c[half + t] + a * z[half + t]) * by;
        }
    }
    for (int64_t t = 0; t < d; t++) store(keys + s.at * d + t, sums[t]), store(values + s.at * d + t, y[(r + 1) * d + t]);
    Keys<W> parts[2] = {
        {nullptr, nullptr, n0, 0, s.width - n0},
        {keys + s.start[row] * d, values + s.start[row] * d, n1, n0, s.room - s.at - 1}};
    if (n0) {
        parts[0].k = prompt + (s.prompt_of[row] * s.heads + head) * 2 * s.width * d;
        parts[0].v = parts[0].k + s.width * d;
    }
    for (auto& part : parts) scores_of(q, r, d, part.k, part.n, part.spare, scores + part.to, wide);
    for (int64_t j = 0; j < r; j++) {
        float* p = scores + j * wide;
        std::fill(p + n0 + n1, p + n, p[0]);  // filling to whole vectors: first it is no maximum, then its share is 0
        V top = load(p), total = {};
        for (int64_t t = N; t < n; t += N) { V v = load(p + t); top = v > top ? v : top; }
        const float most = *std::max_element((float*)&top, (float*)&top + N);
        std::fill(p + n0 + n1, p + n, most - 1000);
        for (int64_t t = 0; t < n; t += N) { V v = exponential(load(p + t) - most); store(p + t, v); total += v; }
        const V share = V{} + 1 / sum(total);
        for (int64_t t = 0; t < n; t += N) store(p + t, load(p + t) * share);
    }
    int64_t j = 0;
    for (; j + 2 <= r; j += 2) values_of<2>(parts, scores + j * wide, wide, d, sums, out + j * d);
    if (j < r) values_of<1>(parts, scores + j * wide, wide, d, sums, out + j * d);
}

// Within a parallel region: this thread's part of the heads. Heads of rows with one prompt follow each other, so that
// its keys are still near when the next row asks for them.
template <class O, class W>
void attend(const float* y, O* out, int64_t step, const Rows& s, const W* prompt, W* own) {
    thread_local std::vector<float> memory;
    const int64_t d = s.size, r = s.shared;
    Part part(s.rows * s.heads);
    for (int64_t u = part.begin; u < part.end; u++) {
        int64_t head = u / s.rows, row = u % s.rows, at = row * s.heads + head;
        attend_one(y + at * (r + 2) * d, out + row * step + head * r * d, s, row, head, prompt, own, memory);
    }
}

// oneDNN's small product through torch: C (M, N) = A (M, K) B; bf16 B has pairs of its rows interleaved
typedef void (*Product)(int64_t M, int64_t N, int64_t K, int64_t lda, int64_t ldb, int64_t ldc, bool add, const void* A,
                        const void* B, float* C, bool pairs);
typedef void (*Release)(bool pairs);
constexpr int64_t T = 64;  // outputs of a packed tile, and rows of a product

struct Model {
    int64_t layers, hidden, inner;
    float eps;
    const void* const* weights;  // of each layer: first norm, joined, bias or null, out, second norm, gate and up, down
    const void *embedding, *norm;
    Product product;             // null where the weights are not packed
    Release release;
};

// Inputs of a packed product: in bf16 whole thirty-twos, as many as a tile of AMX takes; oneDNN would halve its tiles.
template <class W> int64_t padded(int64_t n) { return sizeof(W) == 2 ? (n + 31) / 32 * 32 : n; }
inline int64_t sixteen(int64_t n) { return (n + N - 1) / N * N; }
template <class A, class W> A get(const W* p) {  // a vector or a single number
    if constexpr (std::is_same_v<A, V>) return load(p);
    else return one(p);
}

// use(output, row, values, of the second weight's) for this thread's part of the tiles of one or two packed weights
// (outputs, n): vectors of outputs, and single ones at the end of a tile that is not full. x (R, padded(n)) has room
// for whole sixteens of rows; c for two tiles.
template <class W, class F>
void packed(const Model& m, const W* w, const W* second, const W* x, int64_t n, int64_t outputs, int64_t rows, float* c,
            F use) {
    const int64_t k = padded<W>(n), tiles = (outputs + T - 1) / T, blocks = (rows + T - 1) / T;
    Part part(tiles * blocks);
    for (int64_t u = part.begin; u < part.end; u++) {
        const int64_t j0 = u / blocks * T, r0 = u % blocks * T, here = std::min(T, rows - r0);
        m.product(sixteen(here), T, k, k, T, T, false, x + r0 * k, w + j0 * k, c, sizeof(W) == 2);
        float* c2 = second ? c + T * T : c;
        if (second) m.product(sixteen(here), T, k, k, T, T, false, x + r0 * k, second + j0 * k, c2, sizeof(W) == 2);
        const int64_t count = std::min(T, outputs - j0);
        for (int64_t r = 0; r < here; r++) {
            int64_t j = 0;
            for (; j + N <= count; j += N) use(j0 + j, r0 + r, load(c + r * T + j), load(c2 + r * T + j));
            for (; j < count; j++) use(j0 + j, r0 + r, c[r * T + j], c2[r * T + j]);
        }
    }
}

// The decoder for one token a row; rows of `count` caches follow each other.
template <class W, bool MANY>
void step(const Model& m, const Rows* sets, int64_t count, const int64_t* tokens, W* const* prompts, W* const* owns,
          float* x, int threads) {
    typedef std::conditional_t<MANY, W, float> A;  // left sides of products
    int64_t rows = 0;
    for (int64_t c = 0; c < count; c++) rows += sets[c].rows;
    const Rows& s = sets[0];
    const int64_t h = m.hidden, wide = s.heads * (s.shared + 2) * s.size, queries = s.heads * s.shared * s.size;
    auto step_of = [](int64_t n) { return MANY ? padded<W>(n) : n; };
    const int64_t i = m.inner, i_step = step_of(i), h_step = step_of(h), q_step = step_of(queries);
    const int64_t room = MANY ? sixteen(rows) : rows;
    std::vector<float> y(rows * wide);
    std::vector<A> out(room * q_step), inner(room * i_step), common(MANY ? room * h_step : 0);
#pragma omp parallel num_threads(threads)
    {
        // of a few rows each thread makes the normalised ones again rather than waiting for them
        std::vector<A> mine(MANY ? 0 : rows * h);
        std::vector<float> c(MANY ? 2 * T * T : 0);
        A* unit = MANY ? common.data() : mine.data();
        auto normalise = [&](const void* weight) {
            Part part = MANY ? Part(rows) : Part(0);
            if (!MANY) part.end = rows;
            for (int64_t r = part.begin; r < part.end; r++) normal(x + r * h, (const W*)weight, unit + r * h_step, h, m.eps);
            if (MANY) {
#pragma omp barrier
            }
        };
        auto times = [&](const W* w, const A* a, int64_t n, int64_t outputs, auto use) {
            if constexpr (MANY)
                packed(m, w, (const W*)nullptr, a, n, outputs, rows, c.data(), [&](int64_t j, int64_t r, auto v, auto) { use(j, r, v); });
            else product(w, a, n, outputs, rows, use);
        };
#pragma omp for
        for (int64_t r = 0; r < rows; r++)
            for (int64_t t = 0; t < h; t++) x[r * h + t] = one((const W*)m.embedding + tokens[r] * h + t);
        for (int64_t l = 0; l < m.layers; l++) {
            const W* const* w = (const W* const*)(m.weights + 7 * l);
            normalise(w[0]);
            times(w[1], unit, h, wide, [&](int64_t j, int64_t r, auto v) {
                store(&y[r * wide + j], w[2] ? v + get<decltype(v)>(w[2] + j) : v);
            });
#pragma omp barrier
            for (int64_t c = 0, start = 0; c < count; start += sets[c++].rows)
                attend(&y[start * wide], &out[start * q_step], q_step, sets[c], prompts[c * m.layers + l],
                       owns[c * m.layers + l]);
#pragma omp barrier
            auto add = [&](int64_t j, int64_t r, auto v) { store(x + r * h + j, get<decltype(v)>(x + r * h + j) + v); };
            times(w[3], out.data(), queries, h, add);
#pragma omp barrier
            normalise(w[4]);
            auto silu = [](auto v) { return v / (decltype(v){} + 1.0f + exponential(-v)); };
            if constexpr (MANY) {
                packed(m, w[5], w[5] + (i + T - 1) / T * T * h_step, unit, h, i, rows, c.data(),
                       [&](int64_t j, int64_t r, auto v, auto u) { store(&inner[r * i_step + j], silu(v) * u); });
            } else {  // gate and up of an output lie apart, so each is made on its own and both by the same thread
                Part part(i, 4);
                auto half = [&](const W* from, auto use) {
                    int64_t j = part.begin;
                    for (; j + 4 <= part.end; j += 4) rows_of<4>(from + j * h, unit, h, rows, j, use);
                    for (; j < part.end; j++) rows_of<1>(from + j * h, unit, h, rows, j, use);
                };
                half(w[5], [&](int64_t j, int64_t r, float v) { inner[r * i + j] = silu(v); });
                half(w[5] + i * h, [&](int64_t j, int64_t r, float v) { inner[r * i + j] *= v; });
            }
#pragma omp barrier
            times(w[6], inner.data(), i, h, add);
#pragma omp barrier
        }
#pragma omp for
        for (int64_t r = 0; r < rows; r++) {
            std::vector<float> last(h);
            normal(x + r * h, (const W*)m.norm, last.data(), h, m.eps);
            std::copy(last.begin(), last.end(), x + r * h);
        }
        if (MANY) m.release(sizeof(W) == 2);
    }
}

// x (rows, n) float times w (outputs, n) -> out (rows, outputs)
template <class W>
void head(const Model& m, const W* w, const float* x, float* out, int64_t n, int64_t outputs, int64_t rows, int threads) {
    const int64_t k = padded<W>(n);
    std::vector<W> left(m.product ? sixteen(rows) * k : 0);
    for (int64_t r = 0; m.product && r < rows; r++)
        for (int64_t t = 0; t < n; t++) store(&left[r * k + t], x[r * n + t]);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> c(T * T);
        auto use = [&](int64_t j, int64_t r, auto v, auto...) { store(out + r * outputs + j, v); };
        if (!m.product) product(w, x, n, outputs, rows, use);
        else packed(m, w, (const W*)nullptr, left.data(), n, outputs, rows, c.data(), use), m.release(sizeof(W) == 2);
    }
}

template <class W, class... More> void any_step(const Model& m, More... more) {
    m.product ? step<W, true>(m, more...) : step<W, false>(m, more...);
}

}  // namespace

extern "C" {

// The decoder for one token a row: -> x (R, h), hidden states after the last norm. `prompts` holds nulls where there is none.
void fledge_step(int half, const Model* m, const Rows* sets, int64_t count, const int64_t* tokens, void* const* prompts,
                 void* const* owns, float* x, int threads) {
    half ? any_step<bf16>(*m, sets, count, tokens, (bf16* const*)prompts, (bf16* const*)owns, x, threads)
         : any_step<float>(*m, sets, count, tokens, (float* const*)prompts, (float* const*)owns, x, threads);
}

// Logits: x (rows, h) times w (outputs, h), packed or not as the model's weights are
void fledge_head(int half, const Model* m, const void* w, const float* x, float* out, int64_t outputs, int64_t rows,
                 int threads) {
    half ? head(*m, (const bf16*)w, x, out, m->hidden, outputs, rows, threads)
         : head(*m, (const float*)w, x, out, m->hidden, outputs, rows, threads);
}
}
