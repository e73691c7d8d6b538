// Bilinear interpolation to twice the size (align_corners = False): output 2i lies a quarter before input i, output 2i + 1 a quarter behind.
namespace nanodet {

// out[2i] = (in[i - 1] + 3 in[i]) / 4, out[2i + 1] = (3 in[i] + in[i + 1]) / 4; the edge is repeated
inline void doubled(const float* in, int n, float* out) {
    for (int i = 0; i < n; i++) {
        out[2 * i] = 0.25f * in[i > 0 ? i - 1 : 0] + 0.75f * in[i];
        out[2 * i + 1] = 0.75f * in[i] + 0.25f * in[i + 1 < n ? i + 1 : n - 1];
    }
}

inline void halved(const float* g, int n, float* out) {
    for (int i = 0; i < n; i++) {
        const float before = i > 0 ? g[2 * i - 1] : g[0], behind = i + 1 < n ? g[2 * i + 2] : g[2 * n - 1];
        out[i] = 0.75f * (g[2 * i] + g[2 * i + 1]) + 0.25f * (before + behind);
    }
}

// a * x + b * y of two rows
inline void mix(const float* x, const float* y, float a, float b, int n, float* out) {
    for (int i = 0; i < n; i++) out[i] = a * x[i] + b * y[i];
}

inline void upsample(const float* x, int planes, int height, int width, float* y) {
    #pragma omp parallel
    {
        std::vector<float> row(width);
        #pragma omp for schedule(static)
        for (int p = 0; p < planes; p++)
            for (int i = 0; i < 2 * height; i++) {
                const float* plane = x + size_t(p) * height * width;
                const int near = i / 2, far = std::min(std::max(i % 2 ? near + 1 : near - 1, 0), height - 1);
                mix(plane + size_t(near) * width, plane + size_t(far) * width, 0.75f, 0.25f, width, row.data());
                doubled(row.data(), width, y + (size_t(p) * 2 * height + i) * 2 * width);
            }
    }
}

inline void upsample_backward(const float* gy, int planes, int height, int width, float* gx) {
    const int wide = 2 * width;
    #pragma omp parallel
    {
        std::vector<float> row(wide);
        #pragma omp for schedule(static)
        for (int p = 0; p < planes; p++)
            for (int i = 0; i < height; i++) {
                const float* plane = gy + size_t(p) * 4 * height * width;
                const auto line = [&](int r) { return plane + size_t(r) * wide; };
                const float *a = line(2 * i), *b = line(2 * i + 1);
                const float *before = line(i > 0 ? 2 * i - 1 : 0), *behind = line(i + 1 < height ? 2 * i + 2 : 2 * height - 1);
                for (int j = 0; j < wide; j++) row[j] = 0.75f * (a[j] + b[j]) + 0.25f * (before[j] + behind[j]);
                halved(row.data(), width, gx + (size_t(p) * height + i) * width);
            }
    }
}

}  // namespace nanodet
