// The passes over activations between the products, one loop each. pass_loops.py builds and calls this; passes.py has
// the same in torch. N rows; X is float or bf16, computed in float and rounded once. A row's result depends on no other
// row, and sums over rows are of BLOCK of them each: how many threads there are changes no bit.
#include "lanes.h"

namespace {

constexpr int64_t BLOCK = 64;      // rows whose part of a weight's gradient is one sum
constexpr int64_t WORTH = 1 << 14;  // numbers a thread is worth waking for

inline int threads_for(int64_t numbers, int64_t threads) { return int(std::max<int64_t>(1, std::min(threads, numbers / WORTH))); }

// 1 / (1 + e^-x), of small numbers as exact as of large ones
template <class X> inline __m512 sigmoid(__m512 x) {
    const __m512 one = _mm512_set1_ps(1);
    const __m512 e = power<X>(_mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(-LOG2E)));  // e^-|x|
    const __mmask16 negative = _mm512_movepi32_mask(_mm512_castps_si512(x));
    return _mm512_div_ps(_mm512_mask_mov_ps(one, negative, e), _mm512_add_ps(one, e));
}

// x (N, h), weight (h,) -> x / rms * weight (N, h), 1 / rms (N,)
template <class X>
void norm(int64_t rows, int64_t h, const X* x, const X* weight, float eps, X* out, float* scale, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads_for(rows * h, threads))
    for (int64_t i = 0; i < rows; i++) {
        const X* from = x + i * h;
        __m512 sum = _mm512_setzero_ps();
        for (int64_t e = 0; e < h; e += W) {
            const __m512 v = load(from + e, lanes(h - e));
            sum = _mm512_fmadd_ps(v, v, sum);
        }
        scale[i] = 1 / std::sqrt(_mm512_reduce_add_ps(sum) / h + eps);
        const __m512 s = _mm512_set1_ps(scale[i]);
        for (int64_t e = 0; e < h; e += W) {
            const __mmask16 m = lanes(h - e);
            store(out + i * h + e, _mm512_mul_ps(_mm512_mul_ps(load(from + e, m), s), load(weight + e, m)), m);
        }
    }
}

// g (N, h) -> gradients of x (N, h) and, for each BLOCK of rows, of the weight (h,) in float
template <class X>
void norm_backward(int64_t rows, int64_t h, const X* g, const X* x, const X* weight, const float* scale, X* d_x,
                   float* d_weight, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads_for(rows * h, threads))
    for (int64_t b = 0; b < (rows + BLOCK - 1) / BLOCK; b++) {
        float* sums = d_weight + b * h;
        std::fill_n(sums, h, 0.0f);
        for (int64_t i = b * BLOCK; i < std::min(rows, (b + 1) * BLOCK); i++) {
            const X *up = g + i * h, *from = x + i * h;
            const __m512 s = _mm512_set1_ps(scale[i]);
            __m512 inner = _mm512_setzero_ps();  // of the gradient with the unit row
            for (int64_t e = 0; e < h; e += W) {
                const __mmask16 m = lanes(h - e);
                const __m512 part = _mm512_mul_ps(load(up + e, m), _mm512_mul_ps(load(from + e, m), s));
                store(sums + e, _mm512_add_ps(load(sums + e, m), part), m);
                inner = _mm512_fmadd_ps(part, load(weight + e, m), inner);
            }
            const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(inner) / h);
            for (int64_t e = 0; e < h; e += W) {
                const __mmask16 m = lanes(h - e);
                const __m512 unit = _mm512_mul_ps(load(from + e, m), s), v = _mm512_mul_ps(load(up + e, m), load(weight + e, m));
                store(d_x + i * h + e, _mm512_mul_ps(_mm512_fnmadd_ps(unit, mean, v), s), m);
            }
        }
    }
}

// both (N, 2k): a beside b -> a sigmoid(a) b (N, k)
template <class X> void gate(int64_t rows, int64_t k, const X* both, X* out, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads_for(rows * k, threads))
    for (int64_t i = 0; i < rows; i++)
        for (int64_t e = 0; e < k; e += W) {
            const __mmask16 m = lanes(k - e);
            const __m512 a = load(both + i * 2 * k + e, m), b = load(both + i * 2 * k + k + e, m);
            store(out + i * k + e, _mm512_mul_ps(_mm512_mul_ps(a, sigmoid<X>(a)), b), m);
        }
}

// g (N, k) -> gradient of both (N, 2k)
template <class X>
void gate_backward(int64_t rows, int64_t k, const X* g, const X* both, X* d_both, int64_t threads) {
    const __m512 one = _mm512_set1_ps(1);
#pragma omp parallel for schedule(static) num_threads(threads_for(rows * k, threads))
    for (int64_t i = 0; i < rows; i++)
        for (int64_t e = 0; e < k; e += W) {
            const __mmask16 m = lanes(k - e);
            const __m512 a = load(both + i * 2 * k + e, m), b = load(both + i * 2 * k + k + e, m);
            const __m512 up = load(g + i * k + e, m), s = sigmoid<X>(a), silu = _mm512_mul_ps(a, s);
            const __m512 slope = _mm512_fmadd_ps(silu, _mm512_sub_ps(one, s), s);
            store(d_both + i * 2 * k + e, _mm512_mul_ps(_mm512_mul_ps(up, b), slope), m);
            store(d_both + i * 2 * k + k + e, _mm512_mul_ps(up, silu), m);
        }
}

// x (N, heads, d), `step` from a row to the next; tables (N, d), the first half of sin negative -> (N, heads, d)
template <class X>
void rotate(int64_t rows, int64_t heads, int64_t d, int64_t step, const X* x, const X* cos, const X* sin, X* out,
            int64_t threads) {
    const int64_t half = d / 2;
#pragma omp parallel for schedule(static) num_threads(threads_for(rows * heads * d, threads))
    for (int64_t i = 0; i < rows; i++)
        for (int64_t n = 0; n < heads; n++)
            for (int64_t e = 0; e < half; e += W) {
                const __mmask16 m = lanes(half - e);
                const X *from = x + i * step + n * d + e, *c = cos + i * d + e, *s = sin + i * d + e;
                X* to = out + (i * heads + n) * d + e;
                const __m512 low = load(from, m), high = load(from + half, m);
                store(to, _mm512_fmadd_ps(high, load(s, m), _mm512_mul_ps(low, load(c, m))), m);
                store(to + half, _mm512_fmadd_ps(low, load(s + half, m), _mm512_mul_ps(high, load(c + half, m))), m);
            }
}

}  // namespace

extern "C" {

int64_t fledge_block() { return BLOCK; }

void fledge_norm(int half, int64_t rows, int64_t h, const void* x, const void* weight, float eps, void* out, float* scale,
                 int64_t threads) {
    half ? norm(rows, h, (const bf16*)x, (const bf16*)weight, eps, (bf16*)out, scale, threads)
         : norm(rows, h, (const float*)x, (const float*)weight, eps, (float*)out, scale, threads);
}

void fledge_norm_backward(int half, int64_t rows, int64_t h, const void* g, const void* x, const void* weight,
                          const float* scale, void* d_x, float* d_weight, int64_t threads) {
    half ? norm_backward(rows, h, (const bf16*)g, (const bf16*)x, (const bf16*)weight, scale, (bf16*)d_x, d_weight, threads)
         : norm_backward(rows, h, (const float*)g, (const float*)x, (const float*)weight, scale, (float*)d_x, d_weight,
                         threads);
}

void fledge_gate(int half, int64_t rows, int64_t k, const void* both, void* out, int64_t threads) {
    half ? gate(rows, k, (const bf16*)both, (bf16*)out, threads) : gate(rows, k, (const float*)both, (float*)out, threads);
}

void fledge_gate_backward(int half, int64_t rows, int64_t k, const void* g, const void* both, void* d_both,
                          int64_t threads) {
    half ? gate_backward(rows, k, (const bf16*)g, (const bf16*)both, (bf16*)d_both, threads)
         : gate_backward(rows, k, (const float*)g, (const float*)both, (float*)d_both, threads);
}

void fledge_rotate(int half, int64_t rows, int64_t heads, int64_t d, int64_t step, const void* x, const void* cos,
                   const void* sin, void* out, int64_t threads) {
    half ? rotate(rows, heads, d, step, (const bf16*)x, (const bf16*)cos, (const bf16*)sin, (bf16*)out, threads)
         : rotate(rows, heads, d, step, (const float*)x, (const float*)cos, (const float*)sin, (float*)out, threads);
}

}
