// What loops of AVX-512 share: numbers of 16 lanes, tiles of 64 rows, torch's small products (native.py).
// X is float or bf16; sums of products are float. Exponents are of two.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <immintrin.h>
#include <limits>
#include <omp.h>
#include <vector>

namespace {

constexpr int64_t T = 64;     // rows a tile: as many as a word of bits
constexpr int64_t W = 16;     // lanes
constexpr float LOG2E = 1.44269504f, INF = std::numeric_limits<float>::infinity();
typedef uint16_t bf16;

// oneDNN's small product through torch: C (M, N) = or += A (M, K) B, B as `across` and `along` lay it
typedef void (*Product)(int64_t M, int64_t N, int64_t K, int64_t lda, int64_t ldb, int64_t ldc, bool add, const void* A,
                        const void* B, float* C, bool pairs);
typedef void (*Release)(bool pairs);

template <class X> constexpr bool PAIRS = sizeof(X) == 2;  // rows of B are interleaved two by two

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

// 64 rows of a matrix as the right side of a product: they as columns (`across`: size x T), or as they are (T x size).
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

}  // namespace
