"""Ideas of segmenting, tried on priors as they are: nothing is trained here.

    python Testing/benchmarks/segmenting_ideas.py PRIOR BACKBONE CASES RESULT IDEA...

BACKBONE is a file, or - for the bundled one; CASES are separated by commas. The ideas: `base`; `smooth`, presence
smoothed over neighbouring slices; `tta:zoom` and `tta:gamma`, slices also seen at two other places and sizes, or with two other
contrasts; `p2`, a second pass that attends to both neighbours of the first; `n2`, the same after a first pass without 3D;
`blend`, what is remembered of a slice is averaged with the condition's outlines; `ahead`, the outlines of the next
slice are attended to as well; `outlines`, the result is averaged with the condition's outlines.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from common import labelled_cases
from torch.nn import functional as F

from DiffuSAMLib.datasets import read_case
from DiffuSAMLib.encoded_volume import EncodedVolume
from DiffuSAMLib.full_resolution import to_volume
from DiffuSAMLib.hounsfield import remove_fat
from DiffuSAMLib.metrics import dice
from DiffuSAMLib.propagation import PropagationConfig
from DiffuSAMLib.segmenter import Segmenter, SegmentOptions
from DiffuSAMLib.tensor_store import TensorStore
from DiffuSAMLib.weights import load_prior

torch.set_num_threads(1)
prior, bb, cases, out = sys.argv[1:5]
variants = sys.argv[5:]
loaded = load_prior(prior, backbone_path=None if bb == "-" else Path(bb))


class S(Segmenter):
    table = None

    def presence(self, numbers, condition):
        return super().presence(numbers, condition) if self.table is None else self.table[list(numbers)]


seg = S(loaded.backbone.backbone, loaded.prior)
ORG = loaded.prior.config.organs
KERNELS = {"smooth": [1.0, 2, 1]}


class Warped(EncodedVolume):
    zoom = 1.0
    shift = (0.0, 0.0)
    gamma = 1.0

    def _encoded(self, stack, numbers, low, high):
        grid = self.grid
        me = self

        class G:
            def to_slices(_, s):
                sq = grid.to_slices(s)
                if me.gamma != 1:
                    sq = sq.clamp(0, 1) ** me.gamma
                if me.zoom == 1 and me.shift == (0.0, 0.0):
                    return sq
                th = torch.tensor(
                    [[1 / me.zoom, 0, -me.shift[0] / me.zoom], [0, 1 / me.zoom, -me.shift[1] / me.zoom]]
                )[None]
                g = F.affine_grid(th, (1, 1, *sq.shape[-2:]), align_corners=False).expand(len(sq), -1, -1, -1)
                return F.grid_sample(sq[:, None], g, align_corners=False)[:, 0]

        self.grid = G()
        try:
            return super()._encoded(stack, numbers, low, high)
        finally:
            self.grid = grid

    def back(self, logits):
        if self.zoom == 1 and self.shift == (0.0, 0.0):
            return logits
        t = torch.from_numpy(logits.astype(np.float32))
        th = torch.tensor([[self.zoom, 0, self.shift[0]], [0, self.zoom, self.shift[1]]])[None]
        g = F.affine_grid(th, (1, 1, *t.shape[-2:]), align_corners=False).expand(len(t), -1, -1, -1)
        return F.grid_sample(t, g, align_corners=False, padding_mode="border").numpy()


MEMBERS = {
    "id": (1.0, (0.0, 0.0), 1.0),
    "z": (0.92, (0.0, 0.0), 1.0),
    "zl": (0.92, (0.06, 0.04), 1.0),
    "zr": (0.92, (-0.06, -0.04), 1.0),
    "s": (1.0, (0.04, 0.0), 1.0),
    "g-": (1.0, (0.0, 0.0), 0.8),
    "g+": (1.0, (0.0, 0.0), 1.25),
    "zz": (0.85, (0.0, 0.0), 1.0),
}


def ptable(enc):
    rows = []
    for b in range(0, len(enc), 8):
        f = enc.features(range(b, min(len(enc), b + 8)))
        rows.append(seg.prior.presence(seg.prior.condition(f)))
    return torch.cat(rows).clamp(-8, 8)


def smooth(p, kernel):
    k = torch.tensor(kernel)
    k = k / k.sum()
    r = len(k) // 2
    pad = torch.cat([p[:1]] * r + [p] + [p[-1:]] * r)
    return sum(w * pad[i : i + len(p)] for i, w in enumerate(k))


def opts(v):
    o = SegmentOptions()
    k, _, x = v.partition("=")
    if k in ("steps", "samples"):
        return replace(o, **{k: int(x)})
    if k == "presence":
        return replace(o, propagation=PropagationConfig(presence=float(x)))
    if k == "bank":
        return replace(o, propagation=PropagationConfig(bank=int(x)))
    if k == "no3d":
        return replace(o, propagation=PropagationConfig(three_d=False))
    return o


def logits_of(enc, o):
    organs = list(range(len(ORG)))
    gen = TensorStore([(len(organs) * o.samples, *seg.backbone.memory_shape)])
    with gen:
        pres = seg._generate(enc, gen, organs, o, lambda a, b: None)
        return seg._propagate(enc, gen, pres, o, None, None)


def pass2(enc, o, what, gain=1.0, o1=None, rounds=1):
    """what: letters g (generated), s (self), n (both neighbours)."""
    from DiffuSAMLib.backbones import Memory

    organs = list(range(len(ORG)))
    B = seg.backbone
    gen = TensorStore([(len(organs), *B.memory_shape)])
    with gen:
        pres = seg._generate(enc, gen, organs, o, lambda a, b: None)
        first = seg._propagate(enc, gen, pres, o1 or o, None, None)
        n = len(enc)
        start = first
        out = first
        if "o" in what:
            ol = outlined(enc)
            gate = (pres >= o.propagation.presence)[:, :, None, None]
            out = np.where(gate, ol, -10).astype(np.float16)
        for _ in range(rounds):
            first = out
            out = first.copy()
            mem = {}
            alive = first.max(axis=(2, 3)) > 0
            for i in range(n):
                os = [k for k in organs if alive[i, k]]
                if not os:
                    continue
                f = enc.features([i] * len(os))
                m = B.encode_memory(f, torch.from_numpy(first[i, os].astype(np.float32))[:, None] * gain)
                for k, x in zip(os, m):
                    mem[i, k] = x
            for i in range(n):
                for k in organs:
                    if pres[i, k] < 0.5 or not alive[i, k]:
                        continue
                    ms = []
                    if "g" in what:
                        ms.append(Memory(gen.get([i], device=B.device)[0][:, k]))
                    if "s" in what:
                        ms.append(Memory(mem[i, k][None]))
                    if "n" in what:
                        for j in (i - 1, i + 1):
                            if (j, k) in mem:
                                ms.append(Memory(mem[j, k][None], distance=1))
                    if not ms:
                        continue
                    d = B.decode(enc.features([i]), ms)
                    out[i, k] = d.logits.clamp(-10, 10)[0, 0].float().numpy()
    return first, out


def outlined(enc):
    rows = []
    for b in range(0, len(enc), 8):
        f = enc.features(range(b, min(len(enc), b + 8)))
        c = seg.prior.condition(f)
        rows.append(seg.prior.outlines(c))
    return torch.cat(rows).clamp(-10, 10).float().numpy()


def outmem(enc, o, what):
    """chain whose generated memory is replaced by the encoded outline ('o'), or averaged with it ('a')."""
    organs = list(range(len(ORG)))
    B = seg.backbone
    ol = torch.from_numpy(outlined(enc))
    gen = TensorStore([(len(organs), *B.memory_shape)])
    with gen:
        pres = seg._generate(enc, gen, organs, o, lambda a, b: None)
        for i in range(len(enc)):
            f = enc.features([i] * len(organs))
            m = B.encode_memory(f, ol[i][:, None])
            if what == "a":
                m = (m + gen.get([i], device=B.device)[0][0]) / 2
            gen.put(i, [m])
        return seg._propagate(enc, gen, pres, o, None, None)


import DiffuSAMLib.segmenter as SG
from DiffuSAMLib.propagation import Propagation

BLEND = {"w": 0.0, "ol": None, "mode": "avg"}


class Blended(Propagation):
    def _remember(self, group, decoded, features):
        if BLEND["w"] > 0:
            ol = torch.from_numpy(np.stack([BLEND["ol"][t.position, t.organ] for t in group]))[:, None]
            p = decoded.raw_logits.sigmoid()
            q = ol.sigmoid()
            w = BLEND["w"]
            m = torch.minimum(p, q) if BLEND["mode"] == "min" else p * (1 - w) + q * w
            decoded = replace(decoded, raw_logits=torch.logit(m, eps=5e-5))
        super()._remember(group, decoded, features)


AHEAD = {"on": False, "ol": None}
from DiffuSAMLib.backbones import Memory as Mem


class Ahead(Blended):
    def _decode(self, items, neighbours):
        if AHEAD["on"] and neighbours:
            d = self._dirs
            feats = self.features([i for i, _, _ in items])
            ahead = [min(max(i + d[(i, o)], 0), len(self.wanted) - 1) for i, o, _ in items]
            ol = np.stack(
                [np.where(self.wanted[j, o], AHEAD["ol"][j, o], -10) for j, (_, o, _s) in zip(ahead, items)]
            )
            ol = torch.from_numpy(ol)[:, None].float()
            if AHEAD.get("dil"):  # AHEADG
                k = AHEAD["dil"]
                gate = torch.stack(
                    [self._last.get((o, d[(i, o)]), torch.full((1, 64, 64), 10.0)) for i, o, _ in items]
                )
                if k > 0:
                    gate = F.max_pool2d(gate, 2 * k + 1, 1, k)
                ol = torch.minimum(ol, gate)
            mem = self.backbone.encode_memory(self.features(ahead), ol)
            if AHEAD.get("fall"):  # FALLB
                small = ol.amax((1, 2, 3)) < AHEAD.get("thr", 0.0)
                near = neighbours[-1].features
                mem = torch.where(small[:, None, None, None], near, mem)
            neighbours = [*neighbours, Mem(mem, distance=1)]
        return super()._decode(items, neighbours)

    def _remember(self, group, decoded, features):
        if not hasattr(self, "_last"):
            self._last = {}
        for t, l in zip(group, decoded.raw_logits):
            for dd in [t.direction] if t.direction else [1, -1]:
                self._last[(t.organ, dd)] = l.float()
        super()._remember(group, decoded, features)

    def _advance(self, tracks):
        if not hasattr(self, "_last"):
            self._last = {}
        self._dirs = {(t.position, t.organ): t.direction for t in tracks}
        return super()._advance(tracks)


SG.Propagation = Ahead


def finish(vol, enc, logits):
    lab, _ = to_volume(vol, enc.order, enc.grid, logits, refine=True)
    organs = list(range(len(ORG)))
    if vol.modality == "CT":
        remove_fat(lab, vol.array, seg._values(organs, seg.prior.config.solid))
    st = enc.order.view(lab)
    st[:] = seg._cleaned(st, organs, enc.order.geometry.spacing[::-1])
    return lab


res = {}
with torch.no_grad():
    for case in labelled_cases(cases.split(",")):
        vol, truth = read_case(case)
        encs = {}

        def enc_of(m):
            if m not in encs:
                e = Warped(vol, seg.backbone)
                e.zoom, e.shift, e.gamma = MEMBERS[m]
                e.encode(lambda a, b: None)
                encs[m] = (e, ptable(e))
            return encs[m]

        for v in variants:
            t0 = time.time()
            e, p = enc_of("id")
            o = opts(v)
            seg.table = None
            if v.startswith("tta:"):
                ms = v[4:].split(",")
                ps = sum(enc_of(m)[1] for m in ms) / len(ms)
                seg.table = ps.sigmoid()
                acc = 0
                for m in ms:
                    em = enc_of(m)[0]
                    acc = acc + 1 / (1 + np.exp(-em.back(logits_of(em, o)).astype(np.float32)))
                acc = (acc / len(ms)).clip(5e-5, 1 - 5e-5)
                lg = np.log(acc / (1 - acc)).astype(np.float16)
            elif v in ("truthgrid", "truthmem"):
                st = e.order.view(truth.array)
                nm = {n: k for k, n in truth.names.items()}
                lg = np.full((len(e), len(ORG), 64, 64), -10, np.float32)
                from DiffuSAMLib.backbones import Memory

                for i in range(len(e)):
                    for k, org in enumerate(ORG):
                        sq = torch.from_numpy(
                            e.grid.labels_to_slices((st[i : i + 1] == nm[org]).astype(np.uint8))
                        ).float()
                        if sq.sum() == 0:
                            continue
                        if v == "truthgrid":
                            lg[i, k] = torch.logit(F.adaptive_avg_pool2d(sq[:, None], 64), eps=1e-4)[
                                0, 0
                            ].numpy()
                        else:
                            f = e.features([i])
                            m = seg.backbone.encode_memory(f, (sq[:, None] * 20 - 10))
                            lg[i, k] = seg.backbone.decode(f, [Memory(m)]).logits.clamp(-10, 10)[0, 0].numpy()
            elif v.startswith("out"):
                lg = logits_of(e, o)
                ol = outlined(e)
                gate = lg.max(axis=(2, 3), keepdims=True) > -9.9
                if v == "out":
                    lg = np.where(gate, ol, -10).astype(np.float16)
                elif v.startswith("outavg"):
                    w = float(v.split(":")[1])
                    sg = lambda z: 1 / (1 + np.exp(-z.astype(np.float32)))
                    a = (sg(lg) * (1 - w) + sg(ol) * w).clip(5e-5, 1 - 5e-5)
                    a = np.log(a / (1 - a))
                    lg = np.where(gate, a, -10).astype(np.float16)
                elif v.startswith("outmem"):
                    lg = outmem(e, o, v.split(":")[1])
            elif v.startswith("n2") or v.startswith("mix3d"):
                no3 = replace(o, propagation=PropagationConfig(three_d=False))
                sg = lambda z: 1 / (1 + np.exp(-z.astype(np.float32)))
                if v.startswith("n2"):
                    q = v.split(":")
                    lg = pass2(e, o, q[1], o1=no3, rounds=int(q[2]) if len(q) > 2 else 1)[1]
                    if len(q) > 3:
                        a = (sg(logits_of(e, o)) + sg(lg)) / 2
                        a = a.clip(5e-5, 1 - 5e-5)
                        lg = np.log(a / (1 - a)).astype(np.float16)
                else:
                    w = float(v.split(":")[1])
                    a = (sg(logits_of(e, o)) * w + sg(logits_of(e, no3)) * (1 - w)).clip(5e-5, 1 - 5e-5)
                    lg = np.log(a / (1 - a)).astype(np.float16)
            elif v.startswith("blend"):
                _, w, mode = v.split(":")
                BLEND.update(w=float(w), ol=outlined(e), mode=mode)
                lg = logits_of(e, o)
                BLEND["w"] = 0.0
            elif v.startswith("ahead"):
                AHEAD.update(
                    on=True,
                    ol=outlined(e),
                    dil=int(v.split(":")[1]) if ":" in v else None,
                    fall=v.count(":") > 1,
                    thr=float(v.split(":")[2]) if v.count(":") > 1 else 0,
                )
                lg = logits_of(e, o)
                AHEAD["on"] = False
            elif v.startswith("p2"):
                kind, _, what = v.partition(":")
                first, second = pass2(e, o, what)
                if kind == "p2avg":
                    sg = lambda z: 1 / (1 + np.exp(-z.astype(np.float32)))
                    a = ((sg(first) + sg(second)) / 2).clip(5e-5, 1 - 5e-5)
                    lg = np.log(a / (1 - a)).astype(np.float16)
                else:
                    lg = second
            elif v.startswith("ptta:"):
                ms = v[5:].split(",")
                seg.table = (sum(enc_of(m)[1] for m in ms) / len(ms)).sigmoid()
                lg = logits_of(e, o)
            else:
                if v in KERNELS:
                    seg.table = smooth(p, KERNELS[v]).sigmoid()
                elif v.startswith("oracle"):
                    pass
                lg = logits_of(e, o) if v != "truthpresence" else None
            if v == "truthpresence":
                st = e.order.view(truth.array)
                seg.table = torch.tensor(
                    np.stack(
                        [
                            (st == n).any((1, 2))
                            for n in [{n: k for k, n in truth.names.items()}[x] for x in ORG]
                        ],
                        1,
                    )
                ).float()
                lg = logits_of(e, o)
            t1 = time.time()
            lab = finish(vol, e, lg)
            d = {}
            names = {n: k for k, n in truth.names.items()}
            for i, org in enumerate(ORG, 1):
                d[org] = dice(lab == i, truth.array == names[org])
            d["mean"] = float(np.mean([d[x] for x in ORG]))
            res.setdefault(v, {})[case.name] = d
            print(case.name, v, {k: round(float(x), 4) for k, x in d.items()}, round(t1 - t0, 2), flush=True)
json.dump(res, open(out, "w"))
for v, r in res.items():
    print("MEAN", v, round(float(np.mean([x["mean"] for x in r.values()])), 4))
