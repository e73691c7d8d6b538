"""Chinese for the headings and labels of the page; the English text is the key.

Names of tensors, reasons and numbers are not translated: they are searched for and quoted.
"""

ZH = {
    "Parity report": "一致性报告",
    "PASSED": "通过", "FAILED": "未通过", "INCONCLUSIVE": "无法判定", "NOT COMPARABLE": "不可比较", "WARNING": "警告",
    "SKIPPED": "跳过", "MEASURED": "已测量", "NOT RUN": "未运行",
    "compared": "已比较", "failed": "失败", "skipped": "跳过", "took": "用时", "made": "生成于", "coverage": "覆盖率",
    "First failure": "首个失败", "First divergence": "首个分歧", "show its row": "查看该行", "Checks": "检查项", "check": "检查", "verdict": "结论", "note": "说明",
    "Structure": "结构", "Weights": "权重", "Layers": "逐层", "Decode / NMS": "解码 / NMS", "Inference": "推理",
    "Metric (COCO)": "指标 (COCO)", "Speed": "速度", "Please note": "请注意",
    "Errors by depth": "误差随深度变化", "Errors by depth, backward": "反向误差随深度变化", "Compared tensors": "已比较的张量", "Only failing": "仅失败项", "Stage": "阶段", "Match": "匹配方式",
    "find a name": "查找名称", "tensor": "张量", "shape": "形状", "own": "自身误差", "inherited": "继承误差", "floor": "噪声下限",
    "bound": "容许上限", "float64, PyTorch": "float64 误差，PyTorch", "float64, Jittor": "float64 误差，Jittor", "rel. L2": "相对 L2",
    "less accurate": "精度较低", "amplified": "被放大", "max abs": "最大绝对误差", "match": "匹配",
    "Both module trees": "两侧模块树", "open all": "全部展开", "close all": "全部折叠", "module": "模块", "status": "状态",
    "parameters": "参数量", "difference": "差异", "total": "合计",
    "Detections": "检测结果", "Differences": "差异列表", "Pictures": "图片", "show scores from": "显示分数不低于",
    "image": "图片", "kind": "类型", "cause": "原因", "margin": "余量", "matched": "匹配", "moved": "移动", "missing": "缺失",
    "extra": "多出", "relabelled": "改类", "unexplained": "无法解释", "largest box difference": "最大框差异",
    "largest score difference": "最大分数差异", "number": "指标", "AP by class": "各类 AP", "class": "类别", "side": "一侧",
    "images/s": "张/秒", "Environment": "环境", "Hashes": "哈希", "what": "项目", "value": "值", "from": "来源",
    "Repeat it": "复现命令", "copy": "复制", "Not run": "未运行", "why": "原因", "Durations": "用时",
    "Everything that could be checked was run.": "所有可检查的项目均已运行。", "light / dark": "浅色 / 深色",
    "setting": "设置", "it/s, PyTorch": "训练 步/秒，PyTorch", "it/s, Jittor": "训练 步/秒，Jittor", "FPS, PyTorch": "推理 FPS，PyTorch",
    "FPS, Jittor": "推理 FPS，Jittor", "memory, MB, PyTorch": "显存 MB，PyTorch", "memory, MB, Jittor": "显存 MB，Jittor",
    "Causes": "原因", "Made by the rounded weights": "由舍入后的权重造成", "on one side only": "仅一侧有", "pairs that moved": "位移的配对", "largest margin": "最大余量",
    "Intervals over images": "按图片的区间", "low": "下限", "high": "上限", "images that would decide": "足以判定的图片数", "Precision over recall": "精确率-召回率曲线",
    "Difference of every class": "各类别的差异",
    "Training steps": "训练步", "step": "步", "loss, PyTorch": "损失，PyTorch", "loss, Jittor": "损失，Jittor", "loss, Jittor running freely": "损失，自由运行的 Jittor",
    "floors": "噪声下限来源", "nearest to its bound": "最接近容许上限的项", "of the bound": "占上限之比",
    "torch_ref and the original": "torch_ref 与原版", "equal in every bit": "逐位相等",
    "agrees": "一致", "differs": "不同",
}  # fmt: skip
