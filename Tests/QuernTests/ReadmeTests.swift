import Quern
import QuernTesting
import Testing

/// What README.md shows a kernel user: compiled, run, and the same text.
@Suite struct ReadmeTests {
  @Test func theKernelSnippetRuns() throws {
    // readme:kernel
    let context = try Context()  // QUERN_BACKEND, else multithreaded
    let weight = try Tensor([1, 2, 3, 4, 5, 6], shape: [2, 3])  // [outputs, inputs], as PyTorch stores it
    let packed = try context.pack(weight.view)  // once, in the layout of this backend
    let layer = try Epilogue(bias: Tensor([0.5, -0.5]), activation: .gelu)

    let x = try Tensor([1, 0, -1, 2, 2, 2], shape: [2, 3])
    let y = try MutableTensor(zeros: [2, 2])  // the caller owns every destination
    try context.linear(x.view, weights: packed, epilogue: layer, into: y)
    try context.softmax(y.view, into: y)  // y may be x
    print(y.elements)
    // readme:end

    // gelu([-1.5, -2.5]) differ little; gelu([12.5, 29.5]) are as good as their arguments.
    let elements = y.elements
    #expect(abs(elements[0] + elements[1] - 1) < 1e-6 && abs(elements[2] + elements[3] - 1) < 1e-6)
    #expect((0.4...0.5).contains(elements[0]) && elements[3] > 0.999)
  }

  @Test func theReadmeShowsTheKernelSnippet() throws {
    #expect(
      try ReadmeSnippet.isShown("kernel", in: #filePath),
      "README.md lacks the lines between // readme:kernel and // readme:end, in this order")
  }
}
