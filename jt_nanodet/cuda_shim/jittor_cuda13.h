// Bridges Jittor 1.3.11 to CUDA 13 and cuDNN 9. Included first (cc_flags="-include ...") in every
// file Jittor compiles, by g++ and by nvcc, so everything here must hold for both.
// A change of this text makes Jittor build its core again.
#ifndef JT_NANODET_JITTOR_CUDA13_H
#define JT_NANODET_JITTOR_CUDA13_H

#ifdef __cplusplus
#include <cstdint>  // g++ 13 stopped including it along with other headers; Jittor relies on that
#endif

#if defined(HAS_CUDA) && defined(__cplusplus)
#include <cuda_runtime_api.h>

#if CUDART_VERSION >= 13000
// Two members are gone from cudaDeviceProp. Jittor names them only in functions it never calls
// (extern/cuda/inc/helper_cuda.h), so any member of type int will do.
#define clockRate warpSize
#define computeMode warpSize
#endif

// The recurrent-network calls of cuDNN 8 and older are gone. Their Jittor operators still have to
// compile; whoever runs one is told so by cuDNN's own error code. NanoDet-Plus has no such layer.
#define JT_NANODET_GONE(...) CUDNN_STATUS_NOT_SUPPORTED
#define cudnnSetRNNDescriptor_v6 JT_NANODET_GONE
#define cudnnGetRNNParamsSize JT_NANODET_GONE
#define cudnnGetRNNWorkspaceSize JT_NANODET_GONE
#define cudnnGetRNNTrainingReserveSize JT_NANODET_GONE
#define cudnnGetRNNLinLayerMatrixParams JT_NANODET_GONE
#define cudnnGetRNNLinLayerBiasParams JT_NANODET_GONE
#define cudnnRNNForwardTraining JT_NANODET_GONE
#define cudnnRNNForwardInference JT_NANODET_GONE
#define cudnnRNNBackwardData JT_NANODET_GONE
#define cudnnRNNBackwardWeights JT_NANODET_GONE

// Without a usable driver CUDA 13 leaves the count as it was and returns an error; Jittor counts on
// a number, and its static initialisers then abort the process. Zero devices is what it can handle.
inline cudaError_t jt_nanodet_device_count(int *count) {
    const cudaError_t status = cudaGetDeviceCount(count);
    if (status != cudaSuccess) *count = 0;
    return status;
}
#define cudaGetDeviceCount jt_nanodet_device_count

#endif  // HAS_CUDA
#endif
