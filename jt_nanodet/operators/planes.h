// Planes of one channel, padded and taken apart by stride, so that a strided window becomes contiguous vectors.
//
// With stride s the padded plane is split into s * s phases: element (y, x) lies in phase (y % s, x % s) at (y / s, x / s). All phases have
// the same `pitch`, and so has the output: output (i, j) at i * pitch + j meets tap (ky, kx) at the same index of phase (ky % s, kx % s),
// moved by (ky / s) * pitch + kx / s. A window operator is then one loop over `length()` contiguous elements for every tap, whatever the
// stride; the few elements between `width` and `pitch` are computed and thrown away. Nothing needs a mask.
namespace nanodet {

struct Window {
    int kernel, stride, padding, height, width;  // of the input plane
    int rows, columns;                           // of the output
    int pitch, lines;                            // of a phase

    Window(int kernel, int stride, int padding, int height, int width) : kernel(kernel), stride(stride), padding(padding), height(height), width(width) {
        rows = (height + 2 * padding - kernel) / stride + 1;
        columns = (width + 2 * padding - kernel) / stride + 1;
        const int reach = (kernel - 1) / stride;
        pitch = columns + reach, lines = rows + reach;
    }
    int taps() const { return kernel * kernel; }
    size_t phase() const { return size_t(lines) * pitch; }
    size_t length() const { return size_t(rows - 1) * pitch + columns; }
    // vectors may be read and written past the end by this much
    static constexpr size_t SLACK = 8 * LANES;
    size_t shift(int tap) const { return size_t(tap / kernel / stride) * pitch + tap % kernel / stride; }
    int phase_of(int tap) const { return tap / kernel % stride * stride + tap % kernel % stride; }
    size_t offset(int tap) const { return phase_of(tap) * phase() + shift(tap); }
    size_t input_floats() const { return stride * stride * phase() + SLACK; }
    // the output in front of which `shift` may reach back
    size_t front() const { return shift(taps() - 1); }
    size_t output_floats() const { return front() + phase() + SLACK; }
};

// Calls f(row of the plane, first column, place in the phases, number) for what every phase holds of a plane.
template <class F>
inline void for_rows(const Window& w, F f) {
    for (int y = 0; y < w.height; y++) {
        const int line = (y + w.padding) / w.stride, py = (y + w.padding) % w.stride;
        if (line >= w.lines) continue;
        for (int px = 0; px < w.stride; px++) {
            // columns x with (x + padding) % stride == px
            const int x = ((px - w.padding) % w.stride + w.stride) % w.stride;
            const int column = (x + w.padding) / w.stride;
            const int number = std::min((w.width - x + w.stride - 1) / w.stride, w.pitch - column);
            if (number > 0) f(y, x, (py * w.stride + px) * w.phase() + size_t(line) * w.pitch + column, number);
        }
    }
}

// A plane into its phases. The border keeps what the buffer was filled with.
inline void split(const Window& w, const float* plane, float* phases) {
    for_rows(w, [&](int y, int x, size_t place, int number) {
        const float* in = plane + size_t(y) * w.width + x;
        float* out = phases + place;
        if (w.stride == 1)
            std::memcpy(out, in, number * sizeof(float));
        else
            for (int i = 0; i < number; i++) out[i] = in[size_t(i) * w.stride];
    });
}

// The way back: phases into a plane; elements that no window reaches become 0.
inline void join(const Window& w, const float* phases, float* plane) {
    if (w.stride > 1) std::fill_n(plane, size_t(w.height) * w.width, 0.0f);
    for_rows(w, [&](int y, int x, size_t place, int number) {
        float* out = plane + size_t(y) * w.width + x;
        const float* in = phases + place;
        if (w.stride == 1)
            std::memcpy(out, in, number * sizeof(float));
        else
            for (int i = 0; i < number; i++) out[size_t(i) * w.stride] = in[i];
    });
}

// Output rows to and from the common pitch.
template <class From, class To>
inline void spread(const Window& w, const From* plane, To* buffer) {
    for (int y = 0; y < w.rows; y++)
        for (int x = 0; x < w.columns; x++) buffer[size_t(y) * w.pitch + x] = To(plane[size_t(y) * w.columns + x]);
}

template <class From, class To>
inline void gather(const Window& w, const From* buffer, To* plane) {
    for (int y = 0; y < w.rows; y++)
        for (int x = 0; x < w.columns; x++) plane[size_t(y) * w.columns + x] = To(buffer[size_t(y) * w.pitch + x]);
}

}  // namespace nanodet
