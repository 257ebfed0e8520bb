// What duplicates do for every document, as loops that gcc vectorises for whatever processor this is; the same
// integers as numpy makes (shingles.py, signatures.py).
#include <algorithm>
#include <cstdint>

namespace {
constexpr uint64_t MULTIPLIER = 0x9E3779B97F4A7C15ull;

inline uint64_t mix(uint64_t x) {  // the finaliser of splitmix64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}
}  // namespace

extern "C" {

// Code points of texts one behind the other -> a hash for each token, and where each text's begin and end.
// ends (texts) counts code points, token_ends (texts) tokens; classes: 0 between tokens, 1 of a run, 2 a token alone.
void fledge_tokens(const uint32_t* codes, const int64_t* ends, int64_t texts, const uint8_t* classes, uint64_t* hashes,
                   int64_t* token_ends) {
    int64_t at = 0, found = 0;
    for (int64_t text = 0; text < texts; text++) {
        uint64_t hash = 0;
        bool inside = false;
        for (; at < ends[text]; at++) {
            const uint8_t kind = classes[codes[at]];
            if (inside && kind != 1) hashes[found++] = mix(hash), inside = false;
            if (kind == 2) hashes[found++] = mix(codes[at] + 1ull);
            if (kind == 1) hash = (inside ? hash * MULTIPLIER : 0) + codes[at] + 1, inside = true;
        }
        if (inside) hashes[found++] = mix(hash);
        token_ends[text] = found;
    }
}

// signatures (documents, count): out[i] = min over the document's shingles x of a[i] x + b[i], modulo 2^32.
void fledge_minhash(const uint32_t* shingles, const int64_t* ends, int64_t documents, const uint32_t* a,
                    const uint32_t* b, int64_t count, uint32_t* out) {
    constexpr int64_t TILE = 64;  // so many minima stay in registers
    int64_t begin = 0;
    for (int64_t document = 0; document < documents; document++, out += count) {
        const int64_t end = ends[document];
        for (int64_t first = 0; first < count; first += TILE) {
            const int64_t width = std::min(TILE, count - first);
            uint32_t least[TILE], by[TILE] = {}, plus[TILE] = {};
            std::fill(least, least + TILE, 0xffffffffu);
            std::copy(a + first, a + first + width, by);
            std::copy(b + first, b + first + width, plus);
            for (int64_t i = begin; i < end; i++) {
                const uint32_t x = shingles[i];
                for (int64_t j = 0; j < TILE; j++) least[j] = std::min(least[j], by[j] * x + plus[j]);
            }
            std::copy(least, least + width, out + first);
        }
        begin = end;
    }
}

// How many numbers two sorted sets have in common.
int64_t fledge_common(const uint32_t* a, int64_t a_size, const uint32_t* b, int64_t b_size) {
    int64_t i = 0, j = 0, common = 0;
    while (i < a_size && j < b_size) {
        const uint32_t x = a[i], y = b[j];
        common += x == y;
        i += x <= y;
        j += y <= x;
    }
    return common;
}
}
