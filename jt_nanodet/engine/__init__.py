"""The CPU inference engine: a whole detector as one operation, planned in Python, computed by the C++ in `native/`.

    fold      BatchNorm into the convolution before it
    plan      the steps of one network on one input size, readable
    build     a model, module by module, to a plan
    memory    where each channel plane lives
    pack      plan and weights as two flat arrays
    operation those arrays and a batch of images to the answer, as one Jittor operation
    engine    plans by input size, weights packed again when they change
    choice    the engine where it can be used, else a sentence that says why not
"""
