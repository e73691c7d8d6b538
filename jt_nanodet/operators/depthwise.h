// Depthwise convolution, forward and backward, on the phases of planes.h.
namespace nanodet {

struct Tap {
    std::ptrdiff_t offset;
    float weight;
};

// out[i .. i + U * LANES) = sum over taps of weight * in[i + offset]
template <int U>
inline void block(const float* in, const Tap* taps, int number, float* out) {
    Floats sum[U];
    for (int u = 0; u < U; u++) sum[u] = Floats{};
    for (int t = 0; t < number; t++) {
        const float* p = in + taps[t].offset;
        const Floats w = all(taps[t].weight);
        #pragma GCC unroll 8
        for (int u = 0; u < U; u++) sum[u] += w * load<Floats>(p + u * LANES);
    }
    for (int u = 0; u < U; u++) store(out + u * LANES, sum[u]);
}

inline void combine(const float* in, const Tap* taps, int number, size_t length, float* out) {
    size_t i = 0;
    while (i < length) {
        const size_t left = length - i;
        if (left > 4 * LANES)
            block<8>(in + i, taps, number, out + i), i += 8 * LANES;
        else if (left > 2 * LANES)
            block<4>(in + i, taps, number, out + i), i += 4 * LANES;
        else if (left > LANES)
            block<2>(in + i, taps, number, out + i), i += 2 * LANES;
        else
            block<1>(in + i, taps, number, out + i), i += LANES;
    }
}

// sums[t] += sum over i of g[i] * in[i + offset[t]] for G taps; float32 for at most 64 terms a lane, then float64
template <int G>
inline void correlate(const float* g, const float* in, const size_t* offset, size_t length, double* sums) {
    for (size_t begin = 0; begin < length; begin += 64 * LANES) {
        const size_t end = std::min(length, begin + 64 * LANES);
        Floats sum[G];
        for (int t = 0; t < G; t++) sum[t] = Floats{};
        for (size_t i = begin; i < end; i += LANES) {
            const Floats v = load<Floats>(g + i);
            #pragma GCC unroll 9
            for (int t = 0; t < G; t++) sum[t] += v * load<Floats>(in + i + offset[t]);
        }
        for (int t = 0; t < G; t++) sums[t] += total(sum[t]);
    }
}

inline void correlate_all(const float* g, const float* in, const std::vector<size_t>& offset, size_t length, double* sums) {
    size_t t = 0;
    const size_t n = offset.size();
    while (n % 5 == 0 && t < n) correlate<5>(g, in, &offset[t], length, sums + t), t += 5;
    while (t + 9 <= n) correlate<9>(g, in, &offset[t], length, sums + t), t += 9;
    for (; t < n; t++) correlate<1>(g, in, &offset[t], length, sums + t);
}

inline void depthwise(const float* x, const float* weight, int images, int channels, const Window& w, float* y) {
    const size_t in_size = size_t(w.height) * w.width, out_size = size_t(w.rows) * w.columns;
    #pragma omp parallel
    {
        std::vector<float> phases(w.input_floats()), out(w.output_floats());
        std::vector<Tap> taps(w.taps());
        #pragma omp for schedule(static)
        for (int p = 0; p < images * channels; p++) {
            const float* kernel = weight + size_t(p % channels) * w.taps();
            for (int t = 0; t < w.taps(); t++) taps[t] = {std::ptrdiff_t(w.offset(t)), kernel[t]};
            split(w, x + p * in_size, phases.data());
            combine(phases.data(), taps.data(), w.taps(), w.length(), out.data());
            gather(w, out.data(), y + p * out_size);
        }
    }
}

// Gradients of input and weight. One thread does all images of a channel, in order.
inline void depthwise_backward(const float* x, const float* weight, const float* gy, int images, int channels, const Window& w, float* gx, float* gweight) {
    const size_t in_size = size_t(w.height) * w.width, out_size = size_t(w.rows) * w.columns;
    #pragma omp parallel
    {
        std::vector<float> phases(w.input_floats()), gradient(w.output_floats()), back(w.input_floats());
        std::vector<size_t> offsets(w.taps());
        std::vector<std::vector<Tap>> taps(w.stride * w.stride);
        std::vector<double> sums(w.taps());
        float* g = gradient.data() + w.front();
        for (int t = 0; t < w.taps(); t++) offsets[t] = w.offset(t);
        #pragma omp for schedule(static)
        for (int c = 0; c < channels; c++) {
            const float* kernel = weight + size_t(c) * w.taps();
            for (auto& one : taps) one.clear();
            // input (y, x) of a phase was met by output (y - ky / s, x - kx / s) at each of the phase's taps
            for (int t = 0; t < w.taps(); t++) taps[w.phase_of(t)].push_back({-std::ptrdiff_t(w.shift(t)), kernel[t]});
            std::fill(sums.begin(), sums.end(), 0.0);
            for (int n = 0; n < images; n++) {
                const size_t p = size_t(n) * channels + c;
                spread(w, gy + p * out_size, g);
                split(w, x + p * in_size, phases.data());
                correlate_all(g, phases.data(), offsets, w.length(), sums.data());
                for (int q = 0; q < w.stride * w.stride; q++) combine(g, taps[q].data(), int(taps[q].size()), w.phase(), back.data() + q * w.phase());
                join(w, back.data(), gx + p * in_size);
            }
            for (int t = 0; t < w.taps(); t++) gweight[size_t(c) * w.taps() + t] = float(sums[t]);
        }
    }
}

}  // namespace nanodet
