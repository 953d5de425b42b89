import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';

export interface Line {
  label: string;
  color: string;
  values: number[];
}

interface Props {
  title: string;
  times: number[]; // Unix seconds
  lines: Line[];
  format: (n: number) => string;
}

const style = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const clock = (seconds: number) => new Date(seconds * 1000).toTimeString().slice(0, 8);

// Chart draws lines over the last minutes.
export function Chart({ title, times, lines, format }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(null);
  const labels = lines.map((l) => l.label).join();

  useEffect(() => {
    const el = box.current!;
    const axis = { stroke: style('--dim'), grid: { stroke: style('--line'), width: 1 }, ticks: { show: false }, font: '11px system-ui' };
    plot.current = new uPlot(
      {
        width: el.clientWidth,
        height: 170,
        cursor: { drag: { x: false, y: false } },
        legend: { show: true, live: false },
        scales: { y: { range: (_u, _min, max) => [0, Math.max(1, max * 1.1)] } },
        axes: [{ ...axis, values: (_u, ticks) => ticks.map(clock) }, { ...axis, size: 56, values: (_u, ticks) => ticks.map(format) }],
        series: [{}, ...lines.map((l) => ({ label: l.label, stroke: l.color, fill: l.color + '22', width: 1.5, points: { show: false } }))],
      },
      [[], ...lines.map(() => [])] as uPlot.AlignedData,
      el,
    );
    const resize = new ResizeObserver(() => plot.current!.setSize({ width: el.clientWidth, height: 170 }));
    resize.observe(el);
    return () => {
      resize.disconnect();
      plot.current!.destroy();
    };
  }, [labels]);

  useEffect(() => plot.current!.setData([times, ...lines.map((l) => l.values)] as uPlot.AlignedData), [times, labels]);

  return (
    <section class="card">
      <h2>{title}</h2>
      <div ref={box} class="chart" />
    </section>
  );
}
