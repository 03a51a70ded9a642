//! Woods, water and fields.

use super::super::canvas::{Colour, lit, mix};
use super::super::geometry::{Blob, Disc, Point, Region, at, slab};
use super::super::noise::Noise;
use super::site::{EDGE, Site, grass, lawn, sand};

/// Crown beside crown, in stands of different age.
pub(super) fn forest(site: &mut Site) {
    site.cover(|noise, point| lit([30.0, 42.0, 32.0], 1.0 + 0.3 * noise.at(point, 6.0)));
    for (spacing, smallest, largest) in [(14.0, 6.0, 10.0), (19.0, 8.0, 14.0), (36.0, 12.0, 18.0)] {
        for place in site.strewn(spacing) {
            let stand = site.noise.rough(place, 110.0);
            if stand + site.dice.between(-1.0, 1.0) > -0.4 {
                let (radius, leaf) = (site.dice.between(smallest, largest), site.leaf());
                site.tree(place, radius, lit(leaf, 0.95 + 0.25 * stand));
            }
        }
    }
}

/// Sand, surf and sea, the shore running from left to right.
pub(super) fn beach(site: &mut Site) {
    let (deep, shallow) = site.dice.pick([
        ([58.0, 88.0, 96.0], [116.0, 150.0, 146.0]),
        ([64.0, 96.0, 90.0], [132.0, 160.0, 144.0]),
        ([52.0, 78.0, 92.0], [106.0, 138.0, 142.0]),
    ]);
    site.cover(|noise, point| {
        let inland = inland(noise, point);
        let dry = lit(mix([204.0, 190.0, 170.0], sand(noise, point), 0.3), 1.0 + 0.05 * noise.at(point, 5.0));
        if inland > 75.0 {
            return dry;
        }
        let shore = mix([142.0, 128.0, 110.0], dry, ((inland - 18.0) / 57.0).clamp(0.0, 1.0));
        let sea = mix(shallow, deep, (-inland / 200.0).clamp(0.0, 1.0));
        let sea = lit(sea, 1.0 + 0.1 * noise.rough(at(point.x * 0.5, point.y * 1.6), 18.0));
        let ground = mix(sea, shore, (inland / 3.0 + 0.5).clamp(0.0, 1.0));
        mix(ground, [232.0, 235.0, 234.0], foam(noise, point, inland))
    });
}

// How far a point of the beach is from the water's edge, on the sand's side.
fn inland(noise: Noise, point: Point) -> f32 {
    point.y - 8.0 + 22.0 * noise.at(at(point.x, 0.0), 150.0) + 7.0 * noise.at(at(point.x, 40.0), 34.0)
}

// Breakers: lines of lace along the shore, denser towards it, the last one ending on the sand.
fn foam(noise: Noise, point: Point, inland: f32) -> f32 {
    if inland > 8.0 {
        return 0.0;
    }
    let near = (1.0 + inland / 170.0).max(0.0);
    let wave = noise.at(at(point.x * 0.3, inland * 1.3), 30.0);
    let lace = 0.5 * noise.rough(point, 9.0) + 0.35 * noise.at(point, 3.0);
    let edge = (1.0 - (inland + 6.0).abs() / 9.0).max(0.0);
    ((wave + lace + 1.1 * near + edge - 0.75) * 1.6).clamp(0.0, 0.92) * near.sqrt()
}

/// Rows of a crop, with a track between two fields.
pub(super) fn farmland(site: &mut Site) {
    let period = site.dice.between(9.0, 12.0);
    let (crop, soil): (Colour, Colour) = site.dice.pick([
        ([98.0, 126.0, 84.0], [148.0, 132.0, 104.0]),
        ([84.0, 112.0, 72.0], [122.0, 112.0, 88.0]),
        ([112.0, 138.0, 96.0], [140.0, 146.0, 110.0]),
    ]);
    site.cover(|noise, point| {
        let bend = 5.0 * noise.at(point, 200.0);
        let phase = (point.y + bend) / period;
        let row = 1.0 - 4.0 * (phase - phase.floor() - 0.5).abs();
        let row = (row * 1.2 + 0.6 * noise.at(point, 4.0)).clamp(-1.0, 1.0);
        let vigour = 0.15 * noise.rough(point, 130.0);
        lit(mix(soil, crop, 0.5 + 0.5 * row), 1.0 + vigour)
    });
    let track = site.dice.between(-300.0, -150.0);
    site.canvas.blend(&slab(at(track, 0.0), at(0.0, 1.0), EDGE, 9.0), 3.0, |_, _| [158.0, 142.0, 116.0]);
}

/// A winding river between wooded banks and scrub.
pub(super) fn river(site: &mut Site) {
    let noise = site.noise;
    let half_width = site.dice.between(40.0, 54.0);
    let water: Colour = site.dice.pick([[50.0, 60.0, 54.0], [46.0, 56.0, 58.0], [60.0, 66.0, 54.0]]);
    site.cover(|noise, point| {
        let scrub = mix([104.0, 100.0, 74.0], [140.0, 128.0, 104.0], 0.5 + 0.5 * noise.rough(point, 40.0));
        lit(scrub, 0.9 + 0.22 * noise.at(point, 4.0))
    });
    let bank = move |point: Point| {
        let course = 60.0 * noise.at(at(point.x, 900.0), 230.0) + 12.0 * noise.at(at(point.x, 500.0), 50.0);
        (point.y - course).abs() - half_width + 5.0 * noise.at(point, 16.0)
    };
    site.canvas.blend(&Region(|point| bank(point) - 8.0), 14.0, |_, _| [170.0, 160.0, 136.0]);
    site.canvas.blend(&Region(bank), 4.0, |point, _| {
        let ripples = noise.rough(at(point.x * 0.4, point.y), 12.0);
        lit(water, 1.0 + 0.08 * noise.rough(point, 60.0) + 0.1 * ripples)
    });
    for place in site.strewn(12.0) {
        if bank(place) > 4.0 {
            let (radius, light) = (site.dice.between(2.5, 5.0), site.dice.between(0.75, 1.15));
            site.tree(place, radius, lit([104.0, 98.0, 72.0], light));
        }
    }
    site.woods(15.0, (6.0, 12.0), |noise, point| bank(point) > 3.0 && noise.at(point, 80.0) > -0.1);
}

/// Dry, sandy ground dotted with shrubs of all sizes.
pub(super) fn bushland(site: &mut Site) {
    site.cover(|noise, point| {
        let ground = lit(sand(noise, point), 0.84 + 0.06 * noise.rough(point, 9.0));
        mix(ground, [150.0, 132.0, 100.0], (0.3 + noise.at(point, 45.0)).clamp(0.0, 0.7))
    });
    for (spacing, smallest, largest) in [(8.0, 1.2, 2.6), (13.0, 2.5, 6.0)] {
        for place in site.strewn(spacing) {
            if 0.7 * site.noise.rough(place, 70.0) + site.dice.between(-1.0, 1.0) > 0.0 {
                let (radius, light) = (site.dice.between(smallest, largest), site.dice.between(0.7, 1.1));
                site.tree(place, radius, lit([96.0, 86.0, 60.0], light));
            }
        }
    }
}

/// A green among bunkers on a fairway, a cart path and trees beside it.
pub(super) fn golf_course(site: &mut Site) {
    let noise = site.noise;
    site.cover(|noise, point| lit(grass(noise, point), 0.92));
    let rough = move |point: Point| point.y.abs() - 100.0 + 60.0 * noise.at(at(point.x, 300.0), 170.0);
    site.canvas.blend(&Region(rough), 8.0, |point, _| {
        let swath = if (point.x / 28.0).rem_euclid(2.0) < 1.0 { 1.03 } else { 0.97 };
        lit(lawn(noise, point), swath)
    });
    let path = move |point: Point| (point.y + 128.0 - 40.0 * noise.at(at(point.x, 700.0), 120.0)).abs() - 5.0;
    site.canvas.blend(&Region(path), 2.0, |_, _| [196.0, 188.0, 172.0]);
    let green = Blob { disc: Disc { centre: at(18.0, 5.0), radius: 50.0 }, unevenness: 0.2, noise };
    site.canvas.blend(&green, 4.0, |point, _| lit(lawn(noise, point), 1.2));
    for centre in [at(-58.0, -34.0), at(-48.0, 46.0), at(92.0, -30.0), at(60.0, 70.0), at(-120.0, 20.0)] {
        let disc = Disc { centre, radius: site.dice.between(14.0, 21.0) };
        let bunker = Blob { disc, unevenness: 0.75, noise };
        site.canvas.blend(&Blob { disc: Disc { radius: disc.radius + 3.0, ..disc }, ..bunker }, 4.0, |_, under| {
            lit(under, 0.8)
        });
        site.canvas.blend(&bunker, 2.0, |point, _| lit([232.0, 224.0, 206.0], 1.0 + 0.05 * noise.at(point, 6.0)));
    }
    site.woods(19.0, (9.0, 16.0), |noise, point| {
        rough(point) > 30.0 && path(point) > 14.0 && noise.at(point, 80.0) > -0.1
    });
}
