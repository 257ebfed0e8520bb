// A decoding step on a CPU, as a handful of loops: what torch does in about twenty operations a layer, each with its
// own pass over memory and its own cost of being called. native.py builds and calls this; step.py is the same in torch.
//
// Activations are float, weights float or bf16 as they are stored, (out, in) row by row; sums are float. Shapes: R rows
// (one new token each), h hidden, k key heads with r query heads each, d head size, i intermediate.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <omp.h>
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
inline void put(float* p, float f) { *p = f; }
inline void put(bf16* p, float f) { uint32_t u; std::memcpy(&u, &f, 4); *p = (u + 0x7fff + ((u >> 16) & 1)) >> 16; }

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
    for (; i < h; i++) put(out + i, x[i] * scale * one(weight + i));
}

struct Rows {  // where each row stands, and where its keys are; all tensors but `own` are read only
    int64_t rows, heads, shared, size;  // R, k, r, d
    int64_t width, room, at;            // W of `prompt`, T of `own`, and the column of `own` that is written now
    const float *cos, *sin;             // (positions, d), see Rotary.tables
    const int64_t *position, *prompt_of, *length, *start;  // (R,); prompt keys of each, first column of `own`
};

// One row, one key head: y (r + 2, d) not rotated -> out (r, d); keys and values go into the cache.
template <class Y>
void attend_one(const Y* y, Y* out, const Rows& s, int64_t row, int64_t head, const float* prompt, float* own,
                std::vector<float>& memory) {
    const int64_t d = s.size, r = s.shared, half = d / 2, n0 = prompt ? s.length[row] : 0;
    const int64_t n1 = s.at + 1 - s.start[row], n = (n0 + n1 + N - 1) / N * N;
    memory.resize(r * d + r * n + d);
    float *q = memory.data(), *scores = q + r * d, *sums = scores + r * n;
    float* keys = own + (row * s.heads + head) * 2 * s.room * d;
    float* values = keys + s.room * d;
    const float* c = s.cos + s.position[row] * d;
    const float* z = s.sin + s.position[row] * d;
    const float scale = 1 / std::sqrt(float(d));
    for (int64_t j = 0; j <= r; j++) {
        float* to = j < r ? q + j * d : keys + s.at * d;
        float by = j < r ? scale : 1;
        for (int64_t t = 0; t < half; t++) {
            float a = one(y + j * d + t), b = one(y + j * d + half + t);
            to[t] = (a * c[t] + b * z[t]) * by;
            to[half + t] = (b * c[half + t] + a * z[half + t]) * by;
        }
    }
    for (int64_t t = 0; t < d; t++) values[s.at * d + t] = one(y + (r + 1) * d + t);
    struct { const float *k, *v; int64_t n, to; } parts[2] = {
        {nullptr, nullptr, n0, 0}, {keys + s.start[row] * d, values + s.start[row] * d, n1, n0}};
    if (n0) {
        parts[0].k = prompt + (s.prompt_of[row] * s.heads + head) * 2 * s.width * d;
        parts[0].v = parts[0].k + s.width * d;
    }
    for (auto& part : parts)
        for (int64_t t = 0; t < part.n; t++)
            for (int64_t j = 0; j < r; j++) {
                const float *a = q + j * d, *b = part.k + t * d;
                V total = {};
                int64_t e = 0;
                for (; e + N <= d; e += N) total += load(a + e) * load(b + e);
                float dot = sum(total);
                for (; e < d; e++) dot += a[e] * b[e];
                scores[j * n + part.to + t] = dot;
            }
    for (int64_t j = 0; j < r; j++) {
        float *p = scores + j * n, most = p[0];
        for (int64_t t = 1; t < n0 + n1; t++) most = std::max(most, p[t]);
        for (int64_t t = n0 + n1; t < n; t++) p[t] = most - 1000;  // filling to whole vectors: its share is 0
        V total = {};
        for (int64_t t = 0; t < n; t += N) { V v = exponential(load(p + t) - most); store(p + t, v); total += v; }
        for (int64_t t = n0 + n1; t < n; t++) total[t % N] -= p[t];
        float share = 1 / sum(total);
        int64_t e = 0;
        for (; e + 4 * N <= d; e += 4 * N) {
            V a[4] = {};
            for (auto& part : parts)
                for (int64_t t = 0; t < part.n; t++) {
                    float w = p[part.to + t];
                    for (int x = 0; x < 4; x++) a[x] += w * load(part.v + t * d + e + x * N);
                }
            for (int x = 0; x < 4; x++) store(out + j * d + e + x * N, a[x] * share);
        }
        if (e == d) continue;
        std::fill(sums + e, sums + d, 0.0f);
        for (auto& part : parts)
            for (int64_t t = 0; t < part.n; t++)
                for (int64_t x = e; x < d; x++) sums[x] += p[part.to + t] * part.v[t * d + x];
        for (; e < d; e++) put(out + j * d + e, sums[e] * share);
    }
}

// Within a parallel region: this thread's part of the heads. Heads of rows with one prompt follow each other, so that
// its keys are still near when the next row asks for them.
template <class Y>
void attend(const Y* y, Y* out, const Rows& s, const float* prompt, float* own) {
    thread_local std::vector<float> memory;
    const int64_t d = s.size, r = s.shared;
    Part part(s.rows * s.heads);
    for (int64_t u = part.begin; u < part.end; u++) {
        int64_t head = u / s.rows, row = u % s.rows, at = row * s.heads + head;
        attend_one(y + at * (r + 2) * d, out + at * r * d, s, row, head, prompt, own, memory);
    }
}

struct Model {
    int64_t layers, hidden, inner;
    float eps;
    const void* const* weights;  // of each layer: first norm, joined, bias or null, out, second norm, gate and up, down
    const void *embedding, *norm;
};

template <class W>
void step(const Model& m, const Rows& s, const int64_t* tokens, float* const* prompts, float* const* owns, float* x,
          int threads) {
    const int64_t h = m.hidden, wide = s.heads * (s.shared + 2) * s.size, queries = s.heads * s.shared * s.size;
    const int64_t rows = s.rows, i = m.inner;
    std::vector<float> y(rows * wide), out(rows * queries), inner(rows * i);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> unit(rows * h);  // of each thread: made again rather than waited for
        auto normalise = [&](const void* weight) {
            for (int64_t r = 0; r < rows; r++) normal(x + r * h, (const W*)weight, unit.data() + r * h, h, m.eps);
        };
#pragma omp for
        for (int64_t r = 0; r < rows; r++)
            for (int64_t t = 0; t < h; t++) x[r * h + t] = one((const W*)m.embedding + tokens[r] * h + t);
        for (int64_t l = 0; l < m.layers; l++) {
            const W* const* w = (const W* const*)(m.weights + 7 * l);
            normalise(w[0]);
            product(w[1], unit.data(), h, wide, rows, [&](int64_t j, int64_t r, float v) {
                y[r * wide + j] = w[2] ? v + one(w[2] + j) : v;
            });
#pragma omp barrier
            attend(y.data(), out.data(), s, prompts ? prompts[l] : nullptr, owns[l]);
#pragma omp barrier
            product(w[3], out.data(), queries, h, rows, [&](int64_t j, int64_t r, float v) { x[r * h + j] += v; });
#pragma omp barrier
            normalise(w[4]);
            // gate and up of an output lie i apart, so each is made on its own and both by the same thread
            Part part(i, 4);
            auto half = [&](const W* from, auto use) {
                int64_t j = part.begin;
                for (; j + 4 <= part.end; j += 4) rows_of<4>(from + j * h, unit.data(), h, rows, j, use);
                for (; j < part.end; j++) rows_of<1>(from + j * h, unit.data(), h, rows, j, use);
            };
            half(w[5], [&](int64_t j, int64_t r, float v) { inner[r * i + j] = v / (1 + exponential(-v)); });
            half(w[5] + i * h, [&](int64_t j, int64_t r, float v) { inner[r * i + j] *= v; });
#pragma omp barrier
            product(w[6], inner.data(), i, h, rows, [&](int64_t j, int64_t r, float v) { x[r * h + j] += v; });
#pragma omp barrier
        }
#pragma omp for
        for (int64_t r = 0; r < rows; r++) {
            normal(x + r * h, (const W*)m.norm, unit.data(), h, m.eps);
            std::copy(unit.begin(), unit.begin() + h, x + r * h);
        }
    }
}

}  // namespace

extern "C" {

// The decoder for one token a row: -> x (R, h), hidden states after the last norm.
void fledge_step(int half, const Model* m, const Rows* s, const int64_t* tokens, float* const* prompts,
                 float* const* owns, float* x, int threads) {
    half ? step<bf16>(*m, *s, tokens, prompts, owns, x, threads) : step<float>(*m, *s, tokens, prompts, owns, x, threads);
}

// x (rows, n) float times w (outputs, n) -> out (rows, outputs) float
void fledge_product(int half, const void* w, const float* x, float* out, int64_t n, int64_t outputs, int64_t rows,
                    int threads) {
    auto use = [&](int64_t j, int64_t r, float v) { out[r * outputs + j] = v; };
#pragma omp parallel num_threads(threads)
    half ? product((const bf16*)w, x, n, outputs, rows, use) : product((const float*)w, x, n, outputs, rows, use);
}

// Attention alone, y (R, k, r + 2, d) and out (R, k, r, d) in the type of the weights.
void fledge_attend(int half, const void* y, void* out, const Rows* s, const float* prompt, float* own, int threads) {
#pragma omp parallel num_threads(threads)
    half ? attend((const bf16*)y, (bf16*)out, *s, prompt, own) : attend((const float*)y, (float*)out, *s, prompt, own);
}

// x (rows, h) float += more (rows, h); out = RMSNorm(x). `more` may be null.
void fledge_add_norm(int half, float* x, const void* more, const void* weight, void* out, int64_t rows, int64_t h,
                     float eps, int threads) {
    auto run = [&](auto* add, auto* w, auto* to) {
        Part part(rows);
        for (int64_t r = part.begin; r < part.end; r++) {
            float* row = x + r * h;
            int64_t i = 0;
            if (add) {
                for (; i + N <= h; i += N) store(row + i, load(row + i) + load(add + r * h + i));
                for (; i < h; i++) row[i] += one(add + r * h + i);
            }
            normal(row, w, to + r * h, h, eps);
        }
    };
#pragma omp parallel num_threads(threads)
    half ? run((const bf16*)more, (const bf16*)weight, (bf16*)out) : run((const float*)more, (const float*)weight, (float*)out);
}

// x (rows, 2 i), gate then up -> out (rows, i) = silu(gate) * up
void fledge_silu(int half, const void* x, void* out, int64_t rows, int64_t i, int threads) {
    auto run = [&](auto* from, auto* to) {
        Part part(rows);
        for (int64_t r = part.begin; r < part.end; r++) {
            auto *gate = from + r * 2 * i, *up = gate + i;
            int64_t j = 0;
            for (; j + N <= i; j += N) {
                V g = load(gate + j);
                store(to + r * i + j, g / (1.0f + exponential(-g)) * load(up + j));
            }
            for (; j < i; j++) put(to + r * i + j, one(gate + j) / (1 + exponential(-one(gate + j))) * one(up + j));
        }
    };
#pragma omp parallel num_threads(threads)
    half ? run((const bf16*)x, (bf16*)out) : run((const float*)x, (float*)out);
}
}
