#!/usr/bin/python3
"""Rollouts and training steps in plain PyTorch, the way one writes them by hand, to hold wels against.

A DeepSeek-V3-shaped model (MLA with query compression, sigmoid router, shared experts) is read from a Hugging Face folder; keys and
values are cached and grow by torch.cat, experts are a loop. Debian's python3-torch suffices.

  torch_rollout.py MODEL [--streams 256] [--prompt 32] [--new 64] [--dtype f32|bf16]     tokens/s of sampled rollouts
  torch_rollout.py MODEL --train 16 [--seq 256]             tokens/s of forward + backward + AdamW on 16 sequences
  torch_rollout.py MODEL --ids FILE                         mean loss of the token ids in a JSON array: is it the same model?
"""
import argparse, json, struct, time
import numpy as np
import torch
import torch.nn.functional as F


def read_safetensors(path):
    """Byte layout: u64 size of the header, JSON {name: {dtype, shape, data_offsets}}, data."""
    data = open(path, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    out = {}
    for name, t in json.loads(data[8:8 + size]).items():
        if name == "__metadata__":
            continue
        assert t["dtype"] in ("F32", "BF16"), t["dtype"]
        begin, end = (8 + size + at for at in t["data_offsets"])
        if t["dtype"] == "F32":
            values = np.frombuffer(data[begin:end], dtype="<f4").copy()
        else:  # the upper half of an F32
            values = (np.frombuffer(data[begin:end], dtype="<u2").astype("<u4") << 16).view("<f4")
        out[name] = torch.from_numpy(values).reshape(t["shape"])
    return out


def rms_norm(x, gain, eps):
    y = x.float()
    return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * gain


def rotate(x, cos, sin):
    """x [..., t, dr], neighbouring pairs."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


class Model:
    def __init__(self, folder, dtype):
        self.c = json.load(open(folder + "/config.json"))
        assert self.c["model_type"] == "deepseek_v3" and self.c["q_lora_rank"] and self.c.get("n_group", 1) == 1
        self.w = {n: t.to(dtype) for n, t in read_safetensors(folder + "/model.safetensors").items()}
        self.dtype = dtype
        for n in self.w:  # the router stays in f32
            if n.endswith("mlp.gate.weight") or n.endswith("e_score_correction_bias"):
                self.w[n] = self.w[n].float()

    def swiglu(self, x, p):
        return F.linear(F.silu(F.linear(x, self.w[p + "gate_proj.weight"])) * F.linear(x, self.w[p + "up_proj.weight"]),
                        self.w[p + "down_proj.weight"])

    def experts(self, x, p):
        c, flat = self.c, x.reshape(-1, x.shape[-1])
        score = torch.sigmoid(F.linear(flat.float(), self.w[p + "gate.weight"]))
        chosen = torch.topk(score + self.w[p + "gate.e_score_correction_bias"], c["num_experts_per_tok"], -1).indices
        weight = score.gather(-1, chosen)
        if c["norm_topk_prob"]:
            weight = weight / (weight.sum(-1, keepdim=True) + 1e-20)
        weight = (weight * c["routed_scaling_factor"]).to(x.dtype)
        y = self.swiglu(flat, p + "shared_experts.")
        for e in range(c["n_routed_experts"]):
            row, slot = torch.where(chosen == e)
            if len(row):
                y = y.index_add(0, row, self.swiglu(flat[row], f"{p}experts.{e}.") * weight[row, slot, None])
        return y.reshape(x.shape)

    def attention(self, x, p, cache, layer, past):
        c, w = self.c, self.w
        b, t, _ = x.shape
        h, dn, dr, dv, r = (c[k] for k in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank"))
        q = F.linear(rms_norm(F.linear(x, w[p + "q_a_proj.weight"]), w[p + "q_a_layernorm.weight"], c["rms_norm_eps"]),
                     w[p + "q_b_proj.weight"]).view(b, t, h, dn + dr).transpose(1, 2)
        kv = F.linear(x, w[p + "kv_a_proj_with_mqa.weight"])
        k_rope = kv[..., r:].unsqueeze(1)
        kv = F.linear(rms_norm(kv[..., :r], w[p + "kv_a_layernorm.weight"], c["rms_norm_eps"]), w[p + "kv_b_proj.weight"])
        kv = kv.view(b, t, h, dn + dv).transpose(1, 2)
        angle = torch.arange(past, past + t)[:, None] * (c["rope_theta"] ** (-torch.arange(0, dr, 2) / dr))
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        q = torch.cat((q[..., :dn], rotate(q[..., dn:], cos, sin)), -1)
        k = torch.cat((kv[..., :dn], rotate(k_rope, cos, sin).expand(b, h, t, dr)), -1)
        v = kv[..., dn:]
        if cache is not None:
            if layer in cache:
                k, v = torch.cat((cache[layer][0], k), 2), torch.cat((cache[layer][1], v), 2)
            cache[layer] = (k, v)
        s = (q @ k.transpose(-1, -2)).float() / (dn + dr) ** 0.5
        if t > 1:
            s = s + torch.full((t, past + t), float("-inf")).triu(past + 1)
        y = torch.softmax(s, -1).to(x.dtype) @ v
        return F.linear(y.transpose(1, 2).reshape(b, t, h * dv), w[p + "o_proj.weight"])

    def logits(self, ids, cache=None, past=0, last=False):
        c, w = self.c, self.w
        x = F.embedding(ids, w["model.embed_tokens.weight"])
        for i in range(c["num_hidden_layers"]):
            p = f"model.layers.{i}."
            x = x + self.attention(rms_norm(x, w[p + "input_layernorm.weight"], c["rms_norm_eps"]), p + "self_attn.", cache, i, past)
            y = rms_norm(x, w[p + "post_attention_layernorm.weight"], c["rms_norm_eps"])
            x = x + (self.swiglu(y, p + "mlp.") if i < c["first_k_dense_replace"] else self.experts(y, p + "mlp."))
        x = rms_norm(x[:, -1:] if last else x, w["model.norm.weight"], c["rms_norm_eps"])
        return F.linear(x, w["lm_head.weight"]).float()


def rollout(model, streams, prompt, new):
    ids, cache, past = torch.randint(3, model.c["vocab_size"], (streams, prompt)), {}, 0
    with torch.no_grad():
        for _ in range(new):
            z = model.logits(ids, cache, past, last=True)[:, -1]
            past += ids.shape[1]
            ids = torch.multinomial(torch.softmax(z, -1), 1)
    return streams * new


def train(model, sequences, length, steps):
    parameters = [t for n, t in model.w.items() if not n.endswith("correction_bias") and f"layers.{model.c['num_hidden_layers']}." not in n]
    for t in parameters:
        t.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    ids = torch.randint(3, model.c["vocab_size"], (sequences, length + 1))
    seconds = []
    for _ in range(steps + 1):
        begin = time.perf_counter()
        F.cross_entropy(model.logits(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - begin)
    return sequences * length / sorted(seconds[1:])[steps // 2]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("model")
    a.add_argument("--streams", type=int, default=256)
    a.add_argument("--prompt", type=int, default=32)
    a.add_argument("--new", type=int, default=64)
    a.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--train", type=int, default=0)
    a.add_argument("--seq", type=int, default=256)
    a.add_argument("--ids")
    f = a.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(f.threads)
    model = Model(f.model, torch.float32 if f.dtype == "f32" else torch.bfloat16)
    out = {"torch": torch.__version__, "dtype": f.dtype, "threads": f.threads}
    if f.ids:
        ids = torch.tensor([json.load(open(f.ids))])
        with torch.no_grad():
            out["loss"] = F.cross_entropy(model.logits(ids)[0, :-1], ids[0, 1:]).item()
            cache = {}  # the same, token by token
            steps = [model.logits(ids[:, i:i + 1], cache, i)[0] for i in range(ids.shape[1] - 1)]
            out["loss_cached"] = F.cross_entropy(torch.cat(steps), ids[0, 1:]).item()
    elif f.train:
        out["train_tokens_per_s"] = train(model, f.train, f.seq, 5)
    else:
        rollout(model, f.streams, f.prompt, 4)  # warms up
        begin = time.perf_counter()
        out["rollout_tokens_per_s"] = rollout(model, f.streams, f.prompt, f.new) / (time.perf_counter() - begin)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
